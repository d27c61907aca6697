"""After a restart of the server, connections of the pool are stale: nobody sees one fail."""

import asyncio

import pytest
from sqlalchemy import text

from tenantry import Isolation
from tenantry.database import tenant_database


async def terminate_backends(shelf, *databases):
    """Ends every connection of the service, as a restart does, and waits until they have ended."""
    async with shelf.database.connect() as admin:
        ended = await admin.fetch(
            "SELECT pg_terminate_backend(pid, 5000) AS ended FROM pg_stat_activity"
            " WHERE datname = ANY ($1::text[]) AND usename LIKE 'shelf_%'",
            [shelf.database.name, *databases],
        )
    assert ended
    assert all(row["ended"] for row in ended)


@pytest.mark.parametrize("isolation", list(Isolation))
async def test_the_next_transaction_of_a_tenant_works(databases, shelf, tenant_factory, isolation):
    tenant = tenant_factory(isolation=isolation)
    await shelf.provision(tenant)
    async with databases.tenant_session(tenant) as session:
        await shelf.add(session, tenant, "before")
    await terminate_backends(shelf, tenant_database("shelf", tenant.id))
    async with databases.tenant_session(tenant) as session:
        await shelf.add(session, tenant, "after")
        assert await shelf.titles(session) == ["after", "before"]


async def test_so_do_all_that_come_at_once(databases, shelf):
    async def ask():
        async with databases.system_session() as session:
            return await session.scalar(text("SELECT 1 FROM pg_sleep(0.01)"))

    await asyncio.gather(*(ask() for _ in range(8)))
    await terminate_backends(shelf)
    assert await asyncio.gather(*(ask() for _ in range(8))) == [1] * 8
