"""The cap on connections to tenants' own databases, as the server counts them."""

import asyncio

import pytest
from sqlalchemy import text

from tenantry import Isolation


@pytest.fixture
async def tenants(shelf, tenant_factory):
    tenants = [tenant_factory(isolation=Isolation.DATABASE) for _ in range(4)]
    for tenant in tenants:
        await shelf.provision(tenant)
    return tenants


async def test_the_cap_holds_while_every_tenant_is_served(shelf, tenants):
    names = [f"shelf_t_{tenant.id.hex}" for tenant in tenants]
    seen = []
    async with (
        shelf.database.connect() as admin,
        shelf.database.databases(tenant_connections=3, tenant_engines=2, tenant_pool_size=2) as databases,
    ):

        async def serve(tenant):
            async with databases.tenant_session(tenant) as session:
                await shelf.add(session, tenant)
                await session.execute(text("SELECT pg_sleep(0.02)"))

        async def watch():
            while True:
                seen.append(
                    await admin.fetchval(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = ANY ($1) AND usename = 'shelf_service'",
                        names,
                    )
                )
                await asyncio.sleep(0.005)

        watcher = asyncio.create_task(watch())
        await asyncio.gather(*(serve(tenant) for tenant in tenants * 8))
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        assert 1 < max(seen) <= 3
        for tenant in tenants:
            async with databases.tenant_session(tenant) as session:
                assert len(await shelf.titles(session)) == 8
