"""T7: views, materialized views, partitions, SECURITY DEFINER functions and logical decoding of a tenant's table.

For each there is what the server lets through, and that the audit of the catalogue names it before it is deployed.
"""

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app_service.models import CATALOGUE
from tenantry.database._url import sqlalchemy_url, with_database

ADD = text(
    "INSERT INTO document (tenant_id, id, title, body, tags, version, created_at, updated_at)"
    " VALUES (:tenant, gen_random_uuid(), :title, '', '{}', 1, now(), now())"
)


@pytest.fixture(scope="module")
def database(service_database):
    return service_database("app")


@pytest.fixture
async def databases(database, tenant_a, tenant_b):
    await database.truncate()
    async with database.databases() as databases:
        for tenant in (tenant_a, tenant_b):
            async with databases.tenant_session(tenant) as session:
                await session.execute(ADD, {"tenant": tenant.id, "title": tenant.slug})
        yield databases


@pytest.fixture
async def made(database):
    """Objects that a migration of the owner's made, gone at the end."""
    async with database.connect() as admin:

        async def make(*statements):
            await admin.execute("SET ROLE app_owner")
            for statement in statements:
                await admin.execute(statement)
            await admin.execute("RESET ROLE")

        yield make
        await admin.execute("DROP SCHEMA IF EXISTS extra CASCADE")


async def audit(database):
    engine = create_async_engine(sqlalchemy_url(with_database(database.admin_url, database.name)))
    async with engine.connect() as connection:
        findings = await CATALOGUE.audit(connection)
    await engine.dispose()
    return findings


EXTRA = "CREATE SCHEMA extra", "GRANT USAGE ON SCHEMA extra TO app_service"


async def titles(databases, tenant, source):
    async with databases.tenant_session(tenant) as session:
        return (await session.scalars(text(f"SELECT title FROM {source}"))).all()


async def test_a_view_that_asks_as_its_reader_shows_the_readers_rows(databases, database, made, tenant_a):
    await made(
        *EXTRA,
        "CREATE VIEW extra.safe WITH (security_invoker = true) AS SELECT * FROM pool.document",
        "GRANT SELECT ON extra.safe TO app_service",
    )
    assert await titles(databases, tenant_a, "extra.safe") == ["tenant-a"]
    assert await audit(database) == []


async def test_a_view_that_asks_as_its_owner_is_under_force_and_named(databases, database, made, tenant_a):
    await made(
        *EXTRA,
        "CREATE VIEW extra.unsafe AS SELECT * FROM pool.document",
        "GRANT SELECT ON extra.unsafe TO app_service",
    )
    assert await titles(databases, tenant_a, "extra.unsafe") == [], "FORCE holds for the owner too"
    assert await audit(database) == ["extra.unsafe is a view without security_invoker"]


async def test_a_materialized_view_is_empty_and_named(databases, database, made, tenant_a):
    await made(
        *EXTRA,
        "CREATE MATERIALIZED VIEW extra.kept AS SELECT * FROM pool.document",
        "GRANT SELECT ON extra.kept TO app_service",
    )
    assert await titles(databases, tenant_a, "extra.kept") == [], "the owner who fills it sees nothing"
    assert "extra.kept is a materialized view of rows of tenants" in await audit(database)


async def test_a_partition_is_reached_through_its_parent_alone(databases, database, made, tenant_a):
    await made(
        *EXTRA,
        "CREATE TABLE extra.event (tenant_id uuid, title text) PARTITION BY HASH (tenant_id)",
        "CREATE TABLE extra.event_0 PARTITION OF extra.event FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        "GRANT SELECT ON extra.event TO app_service",
    )
    with pytest.raises(Exception, match="permission denied"):
        await titles(databases, tenant_a, "extra.event_0")
    await made("GRANT SELECT ON extra.event_0 TO app_service")
    assert "extra.event_0 is a partition granted to app_service" in await audit(database)


async def test_a_function_with_the_owners_rights_is_under_force_and_named(databases, database, made, tenant_a):
    await made(
        *EXTRA,
        "CREATE FUNCTION extra.titles() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER"
        " AS 'SELECT title FROM pool.document'",
        "GRANT EXECUTE ON FUNCTION extra.titles() TO app_service",
    )
    async with databases.tenant_session(tenant_a) as session:
        assert (await session.scalars(text("SELECT extra.titles()"))).all() == []
    assert await audit(database) == ["extra.titles() is a SECURITY DEFINER function without a search_path of its own"]


async def test_truncate_in_a_grant_is_named(database, made):
    await made("GRANT TRUNCATE ON pool.document TO app_service")
    assert "pool.document is granted to app_service: TRUNCATE" in await audit(database)
    await made("REVOKE TRUNCATE ON pool.document FROM app_service")
    assert await audit(database) == []


@pytest.mark.parametrize("role", ["service", "system"])
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_create_logical_replication_slot('of_all_tables', 'pgoutput', true)",
        "SELECT * FROM pg_logical_slot_get_changes('of_all_tables', NULL, NULL)",
        "CREATE PUBLICATION of_all_tables FOR ALL TABLES",
        "COPY pool.document TO '/tmp/of_all_tables'",
    ],
)
async def test_what_knows_no_policies_is_refused(database, role, statement):
    """Logical decoding, and files of the server."""
    async with database.connect(role) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
