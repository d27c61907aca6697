"""The pool sweep finds nothing in two thousand transactions of the product, and each way to leave a tenant behind."""

from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tenantry.testing import SweepFailed, TenantFactory, sweep_pool

CONNECTIONS = 5


@pytest.fixture
async def tenants(world):
    tenants = [world.a, world.b, *(TenantFactory()(slug=f"more-{n}", external_id=f"more-{n}") for n in range(6))]
    for tenant in tenants:
        async with world.databases.tenant_session(tenant) as session:
            values = {"id": tenant.id, "note": tenant.slug}
            await session.execute(text("INSERT INTO tally VALUES (:id, 'planted', 1, 1, :note)"), values)
    return tenants


async def test_nothing_is_found_in_the_product(world, tenants):
    async with world.database.databases(pool_size=CONNECTIONS, pool_overflow=0, pool_timeout_seconds=60) as databases:
        report = await sweep_pool(databases, tenants, table="pool.tally", connections=CONNECTIONS)
    assert report.tried.total() == 2_000
    assert min(report.tried.values()) > 15, report.tried


class OwnSessions:
    """What a product may have that binds its connections itself."""

    def __init__(self, url):
        self.engine = create_async_engine(
            url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=CONNECTIONS, max_overflow=0
        )

    @asynccontextmanager
    async def engine_for(self, _):
        yield self.engine


class NeverReset(OwnSessions):
    """Sets the tenant for the session of the connection, and commits."""

    @asynccontextmanager
    async def tenant_session(self, tenant=None, read_only=False):
        async with AsyncSession(self.engine) as session:
            await session.execute(text("SELECT set_config('app.tenant_id', :id, false)"), {"id": str(tenant.id)})
            yield session
            await session.commit()


class ResetWhenAllIsWell(OwnSessions):
    """Sets it back at the end, unless something has gone wrong."""

    @asynccontextmanager
    async def tenant_session(self, tenant=None, read_only=False):
        async with AsyncSession(self.engine) as session:
            await session.execute(text("SELECT set_config('app.tenant_id', :id, false)"), {"id": str(tenant.id)})
            await session.commit()
            yield session
            await session.execute(text("SELECT set_config('app.tenant_id', '', false)"))
            await session.commit()


class LostInTheMiddle(OwnSessions):
    """Sets it for the first transaction of a request, although routes may commit in the middle."""

    @asynccontextmanager
    async def tenant_session(self, tenant=None, read_only=False):
        async with AsyncSession(self.engine) as session:
            await session.execute(text("SELECT set_config('app.tenant_id', :id, true)"), {"id": str(tenant.id)})
            yield session
            await session.commit()


class OneTenantForAll(OwnSessions):
    """Keeps the tenant where every task of the process sees the last one."""

    def __init__(self, url):
        super().__init__(url)
        self.current = None

    @asynccontextmanager
    async def tenant_session(self, tenant=None, read_only=False):
        self.current = tenant
        async with AsyncSession(self.engine) as session:
            await session.connection()
            await session.execute(text("SELECT set_config('app.tenant_id', :id, true)"), {"id": str(self.current.id)})
            yield session
            await session.commit()


@pytest.mark.parametrize(
    ("sessions", "position", "seen"),
    [
        (NeverReset, "checkout", "was handed out bound to"),
        (ResetWhenAllIsWell, "checkout", "was handed out bound to"),
        (LostInTheMiddle, "commit in the middle", "saw none of its rows"),
        (OneTenantForAll, "commit", "saw none of its rows, but those of"),
    ],
    ids=str,
)
async def test_a_pool_that_mixes_tenants_up_is_found(world, tenants, sessions, position, seen):
    pool = sessions(world.database.urls.service)
    try:
        with pytest.raises(SweepFailed) as raised:
            await sweep_pool(pool, tenants, table="pool.tally", connections=CONNECTIONS, transactions=300)
    finally:
        await pool.engine.dispose()
    found = [leak for leak in raised.value.report.leaks if leak.position == position]
    assert any(seen in leak.seen for leak in found), str(raised.value)[:3000]
