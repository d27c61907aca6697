"""One transaction, one tenant: what the bind costs, what it sets and what it refuses."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from tenantry import Isolation, NoTenant, TenantAlreadyBound, tenant_scope
from tenantry.database import Databases

UNKNOWN = "01a1fed6-d4ba-73ac-8263-689d0b1c5bf0"


class Wire:
    """Counts round trips: the messages after which a PostgreSQL client waits for the server (Sync and Query)."""

    def __init__(self):
        self.round_trips = 0

    @asynccontextmanager
    async def to(self, url):
        """A URL that leads to the server of ``url`` over this wire."""
        parts = urlsplit(url)
        tasks: set[Any] = set()

        async def serve(reader, writer):
            tasks.add(asyncio.current_task())
            upstream_reader, upstream_writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._requests(reader, upstream_writer))
                    group.create_task(self._answers(upstream_reader, writer))
            finally:
                writer.close()
                upstream_writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{port}") + "?sslmode=disable"
        finally:
            server.close()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _requests(self, reader, writer):
        length = int.from_bytes(await reader.readexactly(4))
        writer.write(length.to_bytes(4) + await reader.readexactly(length - 4))  # the start-up message has no type
        try:
            while True:
                kind = await reader.readexactly(1)
                length = await reader.readexactly(4)
                writer.write(kind + length + await reader.readexactly(int.from_bytes(length) - 4))
                self.round_trips += kind in b"QS"
        except asyncio.IncompleteReadError:
            writer.close()

    async def _answers(self, reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


async def test_the_bind_costs_no_round_trip(shelf, tenant_a):
    wire = Wire()
    async with wire.to(shelf.database.urls.service) as url, shelf.database.databases(database_url=url) as databases:

        async def bound():
            async with databases.tenant_session(tenant_a) as session:
                await session.execute(text("SELECT 1"))
                async with session.begin_nested():
                    await session.execute(text("SELECT 2"))

        async def unbound():
            async with databases.engine_for(tenant_a) as engine, engine.begin() as connection:
                await connection.execute(text("SELECT 1"))
                async with connection.begin_nested():
                    await connection.execute(text("SELECT 2"))

        costs = []
        for transaction in (bound, unbound):
            await transaction()  # prepares its statements
            before = wire.round_trips
            await transaction()
            costs.append(wire.round_trips - before)
    assert costs == [6, 6], "BEGIN, twice a savepoint's ends, two statements, COMMIT"


async def test_it_costs_one_at_most_without_async(shelf, tenant_a):
    wire = Wire()
    async with wire.to(shelf.database.urls.service) as url, shelf.database.databases(database_url=url) as databases:

        def bound():
            with databases.sync.tenant_session(tenant_a) as session:
                session.execute(text("SELECT 1"))
                session.execute(text("SELECT 2"))

        def unbound():
            with databases.sync.engine_for(tenant_a) as engine, engine.begin() as connection:
                connection.execute(text("SELECT 1"))
                connection.execute(text("SELECT 2"))

        costs = []
        for transaction in (bound, unbound):
            await asyncio.to_thread(transaction)  # connects
            before = wire.round_trips
            await asyncio.to_thread(transaction)
            costs.append(wire.round_trips - before)
    assert costs == [5, 4], "BEGIN with the bind is a pipeline, which ends with a Sync of its own"


@pytest.fixture
def binds(databases, tenant_a):
    """Every bind that the service role's engine executes."""
    seen = []

    async def watch():
        async with databases.engine_for(tenant_a) as engine:

            @event.listens_for(engine.sync_engine, "before_cursor_execute")
            def execute(_connection, _cursor, statement, parameters, *_):
                if "tenantry.bind" in statement:
                    seen.append(parameters)

        return seen

    return watch


async def test_a_transaction_is_bound_once_and_the_next_again(databases, binds, tenant_a):
    seen = await binds()
    async with databases.tenant_session(tenant_a) as session:
        for _ in range(3):
            async with session.begin_nested():
                await session.execute(text("SELECT 1"))
        assert len(seen) == 1
        await session.commit()
        await session.execute(text("SELECT 1"))
        assert len(seen) == 2
    async with databases.tenant_session(tenant_a):
        pass
    assert len(seen) == 2, "a session without a statement costs nothing"


async def test_a_commit_in_the_middle_keeps_the_tenant(databases, shelf, tenant_a):
    async with databases.tenant_session(tenant_a) as session:
        await shelf.add(session, tenant_a)
        await session.commit()
        assert await shelf.titles(session) == ["A book"]


async def test_without_a_tenant_nothing_is_sent(shelf):
    # Nobody listens there: a connection would be refused.
    databases = Databases("shelf", shelf.database.settings(database_url="postgresql://a:b@127.0.0.1:1/none"))
    with pytest.raises(NoTenant):
        databases.tenant_session()


async def test_the_current_tenant_is_the_default(databases, shelf, tenant_a):
    with tenant_scope(tenant_a):
        async with databases.tenant_session() as session:
            await shelf.add(session, tenant_a)
    async with databases.tenant_session(tenant_a) as session:
        assert await shelf.titles(session) == ["A book"]


async def test_a_session_does_not_cross_into_the_scope_of_another_tenant(databases, tenant_a, tenant_b):
    with tenant_scope(tenant_b), pytest.raises(TenantAlreadyBound):
        databases.tenant_session(tenant_a)
    async with databases.tenant_session(tenant_a) as session:
        with tenant_scope(tenant_b), pytest.raises(TenantAlreadyBound):
            await session.execute(text("SELECT 1"))
        await session.rollback()


async def test_a_transaction_never_changes_its_tenant(databases, shelf, tenant_a, tenant_b):
    with pytest.raises(DBAPIError, match="bound to another tenant"):  # noqa: PT012 - the session is part of it
        async with databases.tenant_session(tenant_a) as session:
            await shelf.add(session, tenant_a)
            await session.execute(text("SELECT tenantry.bind(:other, 'pool', false)"), {"other": str(tenant_b.id)})
    async with databases.tenant_session(tenant_a) as session:
        assert await shelf.titles(session) == []


@pytest.mark.parametrize(
    ("tenant", "schema", "reason"),
    [
        ("''", "'pool'", "no tenant"),
        ("NULL", "'pool'", "no tenant"),
        (f"'{UNKNOWN}'", "'nowhere'", "does not exist"),
        (f"'{UNKNOWN}'", "NULL", "does not exist"),
    ],
)
async def test_the_function_refuses_half_a_bind(databases, tenant_a, tenant, schema, reason):
    async with databases.engine_for(tenant_a) as engine, engine.connect() as connection:
        with pytest.raises(DBAPIError, match=reason):
            await connection.execute(text(f"SELECT tenantry.bind({tenant}, {schema}, false)"))


async def test_a_read_only_session_cannot_write(databases, shelf, tenant_a):
    with pytest.raises(DBAPIError, match="read-only transaction"):
        async with databases.tenant_session(tenant_a, read_only=True) as session:
            await shelf.add(session, tenant_a)
    # The connection goes back as it was.
    async with databases.tenant_session(tenant_a) as session:
        await shelf.add(session, tenant_a)


async def test_an_error_rolls_back(databases, shelf, tenant_a):
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the session is part of it
        async with databases.tenant_session(tenant_a) as session:
            await shelf.add(session, tenant_a)
            _ = 1 / 0
    async with databases.tenant_session(tenant_a) as session:
        assert await shelf.titles(session) == []


async def test_the_path_is_the_tenants_schema_alone(databases, shelf, tenant_factory):
    tenant = tenant_factory(isolation=Isolation.SCHEMA)
    await shelf.provision(tenant)
    async with databases.tenant_session(tenant) as session:
        schemas = await session.scalar(text("SELECT current_schemas(false)::text"))
        assert schemas == f"{{t_{tenant.id.hex}}}"
    async with shelf.database.connect() as admin:
        await admin.execute(f"DROP TABLE t_{tenant.id.hex}.loan")
    with pytest.raises(DBAPIError, match='relation "loan" does not exist'):
        async with databases.tenant_session(tenant) as session:
            await session.execute(text("SELECT * FROM loan"))


async def test_a_temporary_table_does_not_shadow_a_tenants(databases, shelf, tenant_a):
    async with databases.tenant_session(tenant_a) as session:
        await shelf.add(session, tenant_a)
        await session.execute(text("CREATE TEMPORARY TABLE book (title text) ON COMMIT DROP"))
        assert await shelf.titles(session) == ["A book"]
