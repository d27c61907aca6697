"""A table changes under prepared statements: the first statement of a transaction is repeated once, a later one not."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tenantry import Isolation

SELECT = text("SELECT * FROM book")


@pytest.fixture
async def databases(shelf):
    await shelf.database.truncate()
    async with shelf.database.databases(pool_size=1, pool_overflow=0) as databases:
        yield databases


@pytest.fixture
async def add_column(shelf):
    names: list[str] = []

    async def add():
        names.append(f"extra_{len(names)}")
        async with shelf.database.connect() as admin:
            await admin.execute(f"ALTER TABLE pool.book ADD COLUMN {names[-1]} integer")

    yield add
    async with shelf.database.connect() as admin:
        for name in names:
            await admin.execute(f"ALTER TABLE pool.book DROP COLUMN {name}")


async def test_the_first_statement_is_repeated_bound_to_the_same_tenant(
    databases, shelf, tenant_a, tenant_b, add_column
):
    for tenant in (tenant_a, tenant_b):
        async with databases.tenant_session(tenant) as session:
            await shelf.add(session, tenant, tenant.slug)
            await session.execute(SELECT)
    await add_column()
    async with databases.tenant_session(tenant_a) as session:
        rows = (await session.execute(SELECT)).mappings().all()
        assert [row["title"] for row in rows] == ["tenant-a"]
        assert "extra_0" in rows[0]
        await shelf.add(session, tenant_a, "committed")
    async with databases.tenant_session(tenant_a) as session:
        assert await shelf.titles(session) == ["committed", "tenant-a"]


async def test_read_only_holds_after_the_repetition(databases, shelf, tenant_a, add_column):
    async with databases.tenant_session(tenant_a) as session:
        await session.execute(SELECT)
    await add_column()
    with pytest.raises(DBAPIError, match="read-only transaction"):  # noqa: PT012 - the session is part of it
        async with databases.tenant_session(tenant_a, read_only=True) as session:
            await session.execute(SELECT)
            await shelf.add(session, tenant_a)


async def test_a_later_statement_is_not_repeated(databases, shelf, tenant_a, add_column):
    async with databases.tenant_session(tenant_a) as session:
        await session.execute(SELECT)
    await add_column()
    with pytest.raises(DBAPIError, match="cached statement"):  # noqa: PT012 - the session is part of it
        async with databases.tenant_session(tenant_a) as session:
            await shelf.add(session, tenant_a)
            await session.execute(SELECT)
    async with databases.tenant_session(tenant_a) as session:
        assert await shelf.titles(session) == [], "its transaction is gone, the first write with it"


async def test_schemas_of_different_versions_share_a_connection(databases, shelf, tenant_a, tenant_factory, add_column):
    """The same text has other columns in another tenant's schema."""
    behind = tenant_factory(isolation=Isolation.SCHEMA)
    await shelf.provision(behind)
    await add_column()
    for tenant in (tenant_a, behind, tenant_a):
        async with databases.tenant_session(tenant) as session:
            keys = (await session.execute(SELECT)).keys()
            assert ("extra_0" in keys) == (tenant is tenant_a)
