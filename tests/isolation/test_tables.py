"""Row level security as the last line: statements without a predicate, at the database, as the service role."""

import asyncpg
import pytest

from app_service.models import CATALOGUE, Record
from tenantry import uuid7
from tenantry.testing import sweep_catalogue

TABLES = sorted(CATALOGUE.tenant_tables)
EMPTY = {"system.idempotency_key": "only requests write there"}


def test_every_table_of_the_app_is_in_its_catalogue():
    assert sorted(Record.metadata.tables) == TABLES


@pytest.fixture
async def databases(world):
    async with world.databases() as databases:
        yield databases


async def test_a_bound_session_sees_its_own_rows_only(world, databases):
    """Nor does it change, delete or forge others, in any table; and an unbound one does nothing at all."""
    report = await sweep_catalogue(
        CATALOGUE, world.database, databases, world.a, world.b, words=[world.canary(world.b)], empty=EMPTY
    )
    assert {f"{world.schema(world.b)}.{table}" for table in TABLES} <= report.tried.keys()


async def test_an_insert_that_would_collide_with_a_row_of_b_says_the_same_as_one_that_would_not(world):
    """`ON CONFLICT` on an invisible row must be no oracle: the key starts with the tenant."""
    document = world.ids(world.b)["document_id"]
    for known in (document, uuid7()):
        async with world.transaction(world.a, bound_to=world.a) as connection:
            status = await connection.execute(
                "INSERT INTO document (tenant_id, id, title, body, tags, version, created_at, updated_at)"
                " VALUES ($1, $2, 't', '', '{}', 1, now(), now()) ON CONFLICT DO NOTHING",
                world.a.id,
                known,
            )
            assert status == "INSERT 0 1"
            raise_back = await connection.execute("DELETE FROM document WHERE id = $1", known)
            assert raise_back == "DELETE 1"


async def test_a_child_of_a_row_of_b_is_refused_like_a_child_of_nothing(world):
    messages = []
    for parent in (world.ids(world.b)["document_id"], uuid7()):
        async with world.transaction(world.a, bound_to=world.a) as connection:
            with pytest.raises(asyncpg.ForeignKeyViolationError) as refused:
                await connection.execute(
                    "INSERT INTO document_file (tenant_id, document_id, name, content_id, content_type, size, sha256,"
                    " version, updated_at) VALUES ($1, $2, 'n', $3, 'text/plain', 0, '', 1, now())",
                    world.a.id,
                    parent,
                    uuid7(),
                )
        messages.append(str(refused.value).replace(str(parent), "?"))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("statement", ["TRUNCATE {}", "ALTER TABLE {} DISABLE ROW LEVEL SECURITY", "DROP TABLE {}"])
async def test_the_service_role_does_not_rule_over_tables(world, table, statement):
    async with world.transaction(world.b, bound_to=world.a) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement.format(f"{world.schema(world.b)}.{table}"))


@pytest.mark.parametrize(
    "statement",
    [
        "SET ROLE app_owner",
        "SET ROLE app_system",
        "SET ROLE app_provisioner",
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION app_system",
        "CREATE SCHEMA mine",
        "CREATE TABLE pool.mine (n int)",
        "CREATE FUNCTION pool.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE ROLE mine",
        "SELECT * FROM system.outbox",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    ],
)
async def test_the_service_role_has_no_way_up(world, statement):
    connection = await world.connect(world.a)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_row_security_cannot_be_switched_off(world):
    async with world.transaction(world.b, bound_to=world.a) as connection:
        await connection.execute("SET LOCAL row_security = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await connection.fetch(f"SELECT * FROM {world.schema(world.b)}.document")


async def test_a_transaction_stays_with_its_tenant(world):
    async with world.transaction(world.a, bound_to=world.a) as connection:
        with pytest.raises(asyncpg.PostgresError, match="another tenant"):
            await world.bind(connection, world.b)
