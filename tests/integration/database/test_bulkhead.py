"""Connections of a shared store between tenants: a loud one never has them all, and all work without another's wait."""

import asyncio

import pytest
from sqlalchemy import text

from tenantry import Isolation
from tenantry.limits import ConnectionShares, ProcessFull, Share, TenantFull

PIDS = text("SELECT pg_backend_pid()")


@pytest.fixture
async def eight(shelf):
    """Eight connections, the last of which is for a tenant that has none."""
    await shelf.database.truncate()
    async with shelf.database.databases(pool_size=8, pool_overflow=0, pool_timeout_seconds=5) as databases:
        yield databases


class Crowd:
    """Sessions of a tenant that stay open until they are told to end."""

    def __init__(self, databases, tenant, count):
        self.inside = 0
        self.go = asyncio.Event()
        self.changed = asyncio.Event()
        self.tasks = [asyncio.create_task(self._hold(databases, tenant)) for _ in range(count)]

    async def _hold(self, databases, tenant):
        async with databases.tenant_session(tenant, read_only=True) as session:
            await session.execute(PIDS)
            self.inside += 1
            self.changed.set()
            await self.go.wait()

    async def until_inside(self, count):
        async with asyncio.timeout(10):
            while self.inside < count:
                self.changed.clear()
                await self.changed.wait()

    async def end(self):
        self.go.set()
        return await asyncio.gather(*self.tasks, return_exceptions=True)


async def ask(databases, tenant):
    async with databases.tenant_session(tenant, read_only=True) as session:
        await session.execute(PIDS)


async def test_a_quiet_tenant_is_served_while_a_loud_one_holds_what_it_can_get(eight, tenant_a, tenant_b):
    eight.bulkhead = ConnectionShares(lambda _: Share(), wait=5.0)
    crowd = Crowd(eight, tenant_a, 30)
    await crowd.until_inside(7)
    async with asyncio.timeout(3):
        for _ in range(10):
            await ask(eight, tenant_b)
    assert crowd.inside == 7
    assert await crowd.end() == [None] * 30


async def test_without_the_bulkhead_the_quiet_tenant_would_wait(eight, tenant_a, tenant_b):
    """The control: first come, first served is what it is without."""
    eight.bulkhead = None
    crowd = Crowd(eight, tenant_a, 30)
    await crowd.until_inside(8)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await ask(eight, tenant_b)
    await crowd.end()


async def test_a_tiers_connections_hold_whatever_is_free(eight, tenant_a):
    eight.bulkhead = ConnectionShares(lambda _: Share(cap=2), wait=0.2)
    crowd = Crowd(eight, tenant_a, 2)
    await crowd.until_inside(2)
    with pytest.raises(TenantFull):
        await ask(eight, tenant_a)
    await crowd.end()
    await ask(eight, tenant_a)


async def test_who_is_cancelled_or_fails_gives_its_place_back(eight, tenant_a, tenant_b):
    eight.bulkhead = ConnectionShares(lambda _: Share(), wait=0.2)
    crowd = Crowd(eight, tenant_a, 7)
    await crowd.until_inside(7)
    with pytest.raises(ProcessFull):
        await ask(eight, tenant_a)
    for task in crowd.tasks:
        task.cancel()
    await crowd.end()

    async def fails():
        async with eight.tenant_session(tenant_b) as session:
            await session.execute(text("SELECT nothing_like_it"))

    for _ in range(20):
        with pytest.raises(Exception, match="nothing_like_it"):
            await fails()
    crowd = Crowd(eight, tenant_a, 7)
    await crowd.until_inside(7)
    assert await crowd.end() == [None] * 7


async def test_who_has_a_database_to_itself_has_no_more_sessions_than_it_may(shelf, tenant_factory):
    tenant, other = (tenant_factory(isolation=Isolation.DATABASE) for _ in range(2))
    for each in (tenant, other):
        await shelf.provision(each)
    async with shelf.database.databases(tenant_pool_size=4) as databases:
        databases.bulkhead = ConnectionShares(lambda each: Share(cap=2 if each is tenant else None), wait=0.2)
        crowd = Crowd(databases, tenant, 2)
        await crowd.until_inside(2)
        with pytest.raises(TenantFull):
            await ask(databases, tenant)
        others = Crowd(databases, other, 4)
        await others.until_inside(4)
        assert await others.end() == [None] * 4
        assert await crowd.end() == [None] * 2
        await ask(databases, tenant)
