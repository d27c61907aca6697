"""Row level security as the last line: statements without a predicate, at the database, as the service role."""

import asyncpg
import pytest

from app_service.models import CATALOGUE, Record
from tenantry import uuid7

TABLES = sorted(CATALOGUE.tenant_tables)


def test_every_table_of_the_app_is_in_its_catalogue():
    assert sorted(Record.metadata.tables) == TABLES


async def rows(connection, table):
    return await connection.fetch(f"SELECT * FROM {table}")


@pytest.mark.parametrize("table", TABLES)
async def test_a_bound_session_sees_its_own_rows_only(world, table):
    """Asked in A's place and in B's: a wrong schema or database must not help either."""
    for place in (world.a, world.b):
        async with world.transaction(place, bound_to=world.a) as connection:
            seen = await rows(connection, table)
        assert {row["tenant_id"] for row in seen} <= {world.a.id}
        assert bool(seen) == (place is world.a or world.shares_place), f"{table} has no rows to hide"
    async with world.transaction(world.b, bound_to=world.b) as connection:
        assert await rows(connection, table), f"{table} holds nothing of B: the sweep must plant a row there"


@pytest.mark.parametrize("table", TABLES)
async def test_an_unbound_session_sees_nothing(world, table):
    for place in (world.a, world.b):
        async with world.transaction(place, bound_to=None) as connection:
            assert await rows(connection, f"{world.schema(place)}.{table}") == []


@pytest.mark.parametrize("table", TABLES)
async def test_the_connection_of_a_finished_transaction_sees_nothing(world, table):
    connection = await world.connect(world.b)
    try:
        async with connection.transaction():
            await world.bind(connection, world.b)
            assert await rows(connection, table)
        assert await rows(connection, f"{world.schema(world.b)}.{table}") == []
    finally:
        await connection.close()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("bound", [True, False], ids=["as A", "unbound"])
async def test_rows_of_b_are_neither_changed_nor_deleted(world, table, bound):
    before = await world.fingerprint(world.b)
    name = f"{world.schema(world.b)}.{table}"
    for statement in (f"UPDATE {name} SET tenant_id = tenant_id", f"DELETE FROM {name} WHERE tenant_id = $1"):
        async with world.transaction(world.b, bound_to=world.a if bound else None) as connection:
            arguments = [world.b.id] if "$1" in statement else []
            if not bound or not world.shares_place:
                assert await connection.execute(statement, *arguments) in {"UPDATE 0", "DELETE 0"}
            else:
                touched = await connection.execute(statement, *arguments)
                assert touched == "DELETE 0" or touched.startswith("UPDATE")
    assert await world.fingerprint(world.b) == before


@pytest.mark.parametrize("table", TABLES)
async def test_no_row_is_written_for_another_tenant(world, table):
    """Neither a new row in B's name, nor one of A's own given away."""
    name = f"{world.schema(world.b)}.{table}"
    columns = ", ".join(column.name for column in Record.metadata.tables[table].columns if column.computed is None)
    system = await world.connect(world.b, role="system")
    try:
        copied = await system.fetchrow(f"SELECT {columns} FROM {name} WHERE tenant_id = $1 LIMIT 1", world.b.id)
    finally:
        await system.close()
    values = ", ".join(f"${n}" for n in range(1, len(copied) + 1))
    for bound_to in (world.a, None):
        async with world.transaction(world.b, bound_to=bound_to) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                await connection.execute(f"INSERT INTO {name} ({columns}) VALUES ({values})", *copied.values())
    async with world.transaction(world.a, bound_to=world.a) as connection:
        with pytest.raises(asyncpg.PostgresError) as refused:
            await connection.execute(f"UPDATE {table} SET tenant_id = $1", world.b.id)
    # A foreign key may speak first; the policy speaks in any case that it leaves.
    assert refused.value.sqlstate in {"42501", "23503"}


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
            await rows(connection, f"{world.schema(world.b)}.document")


async def test_a_transaction_stays_with_its_tenant(world):
    async with world.transaction(world.a, bound_to=world.a) as connection:
        with pytest.raises(asyncpg.PostgresError, match="another tenant"):
            await world.bind(connection, world.b)
