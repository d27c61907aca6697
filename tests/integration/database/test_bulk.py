"""Many rows into a table under row level security."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tenantry import Isolation, uuid7
from tenantry.database import copy_rows, copy_rows_sync

COLUMNS = ("tenant_id", "id", "title")


def books(tenant, count):
    return [(tenant.id, uuid7(), f"{tenant.slug} {n}") for n in range(count)]


async def test_copy_straight_into_the_table_is_refused(databases, tenant_a):
    """Why there is a staging table."""
    async with databases.system_session() as session:
        raw = await (await session.connection()).get_raw_connection()
        with pytest.raises(Exception, match="COPY FROM not supported with row-level security"):
            await raw.driver_connection.copy_records_to_table(
                "book", schema_name="pool", columns=COLUMNS, records=books(tenant_a, 1)
            )
        await session.rollback()


@pytest.mark.parametrize("pattern", list(Isolation))
async def test_rows_of_one_tenant(databases, shelf, tenant_factory, pattern):
    tenant = tenant_factory(isolation=pattern)
    await shelf.provision(tenant)
    for _ in range(2):  # the second time the staging table is there
        async with databases.tenant_session(tenant) as session:
            assert await copy_rows(session, "book", COLUMNS, books(tenant, 500)) == 500
            assert await copy_rows(session, "book", COLUMNS, books(tenant, 5)) == 5
    async with databases.tenant_session(tenant) as session:
        assert len(await shelf.titles(session)) == 1010


async def test_rows_of_another_tenant_are_refused(databases, shelf, tenant_a, tenant_b):
    with pytest.raises(DBAPIError, match="row-level security"):
        async with databases.tenant_session(tenant_a) as session:
            await copy_rows(session, "book", COLUMNS, [*books(tenant_a, 3), *books(tenant_b, 1)])
    async with databases.tenant_session(tenant_a) as session:
        assert await copy_rows(session, "book", COLUMNS, books(tenant_a, 1)) == 1
        assert len(await shelf.titles(session)) == 1


async def test_the_system_role_writes_for_many(databases, shelf, tenant_a, tenant_b):
    rows = [*books(tenant_a, 3), *books(tenant_b, 4)]
    async with databases.system_session() as session:
        assert await copy_rows(session, "book", COLUMNS, rows) == 7
        assert await copy_rows(session, "book", COLUMNS, rows[:5], on_conflict="ON CONFLICT DO NOTHING") == 0
    async with databases.tenant_session(tenant_b) as session:
        assert len(await shelf.titles(session)) == 4


async def test_staged_rows_do_not_outlive_their_transaction(databases, shelf, tenant_a, tenant_b):
    """On a pool of two connections the next tenant gets the staging table of the last."""
    for tenant in (tenant_a, tenant_b) * 3:
        async with databases.tenant_session(tenant) as session:
            await copy_rows(session, "book", COLUMNS, books(tenant, 10))
        async with databases.engine_for(tenant) as engine, engine.connect() as connection:
            names = await connection.scalars(
                text("SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'")
            )
            for name in names.all():
                assert await connection.scalar(text(f'SELECT count(*) FROM pg_temp."{name}"')) == 0
    async with databases.tenant_session(tenant_a) as session:
        assert len(await shelf.titles(session)) == 30


@pytest.mark.parametrize("pattern", list(Isolation))
async def test_rows_of_one_tenant_without_async(databases, shelf, tenant_factory, pattern):
    tenant = tenant_factory(isolation=pattern)
    await shelf.provision(tenant)
    for _ in range(2):
        with databases.sync.tenant_session(tenant) as session:
            assert copy_rows_sync(session, "book", COLUMNS, (row for row in books(tenant, 500))) == 500
            again = books(tenant, 2)
            assert copy_rows_sync(session, "book", COLUMNS, again) == 2
            assert copy_rows_sync(session, "book", COLUMNS, again, on_conflict="ON CONFLICT DO NOTHING") == 0
    async with databases.tenant_session(tenant) as session:
        assert len(await shelf.titles(session)) == 1004


async def test_rows_of_another_tenant_are_refused_without_async(databases, shelf, tenant_a, tenant_b):
    with pytest.raises(DBAPIError, match="row-level security"), databases.sync.tenant_session(tenant_a) as session:
        copy_rows_sync(session, "book", COLUMNS, [*books(tenant_a, 3), *books(tenant_b, 1)])
    async with databases.system_session() as session:
        assert await shelf.titles(session) == []


async def test_rows_that_come_one_by_one_are_reported(databases, tenant_a):
    reports: list[int] = []

    async def arriving():
        for row in books(tenant_a, 25_000):
            yield row

    async with databases.tenant_session(tenant_a) as session:
        assert await copy_rows(session, "book", COLUMNS, arriving(), progress=reports.append) == 25_000
        assert await copy_rows(session, "book", COLUMNS, arriving()) == 25_000
        assert await copy_rows(session, "book", COLUMNS, books(tenant_a, 10_000), progress=reports.append) == 10_000
    with databases.sync.tenant_session(tenant_a) as session:
        assert copy_rows_sync(session, "book", COLUMNS, books(tenant_a, 10_000), progress=reports.append) == 10_000
    assert reports == [10_000, 20_000, 10_000, 10_000]
