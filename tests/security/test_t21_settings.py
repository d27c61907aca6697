"""T21: a product's statement cannot, by mistake, change what a connection is bound to, or leave anything on it.

What is left, and documented: whoever can run arbitrary SQL can call a function that sets `app.tenant_id`. Row level
security stops mistakes, not an attacker who writes the statements.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tenantry import TenantAlreadyBound
from tenantry.database import StatementRefused, tenant_schema
from tenantry.database._names import quote

REFUSED = [
    "SET app.tenant_id = '{b}'",
    "set session app.tenant_id to '{b}'",
    "  /* why */ SET search_path = pool, public",
    "-- why\nSET ROLE app_owner",
    "SET SESSION AUTHORIZATION app_system",
    "SET statement_timeout = 0",
    "SET LOCAL app.tenant_id = '{b}'",
    "SET LOCAL search_path TO public",
    "SET LOCAL ROLE app_system",
    "SET LOCAL SESSION AUTHORIZATION app_system",
    "SET LOCAL row_security = off",
    "RESET app.tenant_id",
    "RESET ALL",
    "DISCARD ALL",
    "SELECT 1; SET app.tenant_id = '{b}'",
    "SELECT set_config('app.tenant_id', '{b}', true)",
    "SELECT set_config('APP.tenant_id', '{b}', false)",
    "SELECT set_config('search_path', 'public', true)",
    "CREATE TEMP TABLE kept AS SELECT * FROM document",
    "CREATE TEMPORARY TABLE kept (x text)",
    "CREATE TEMP TABLE kept (x text) ON COMMIT PRESERVE ROWS",
    "SELECT * INTO TEMP kept FROM document",
    "DECLARE kept CURSOR WITH HOLD FOR SELECT * FROM document",
]
ALLOWED = [
    "SET LOCAL statement_timeout = '1s'",
    "SET LOCAL work_mem = '8MB'",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET TRANSACTION READ ONLY",
    "SELECT set_config('product.actor', 'me', true)",
    "CREATE TEMP TABLE gone (x text) ON COMMIT DROP",
    "SELECT 'SET app.tenant_id = 1; RESET ALL' AS words",
    "SELECT title AS reset FROM document WHERE body = 'a; SET b'",
    "UPDATE document SET title = 'x' WHERE false",
]


@pytest.fixture(scope="module")
def database(service_database):
    return service_database("app")


@pytest.fixture(params=["async", "sync"])
async def run(request, database, tenant_a):
    """Runs statements in one session of tenant A, over one connection, and returns what the last one gave."""
    async with database.databases(pool_size=1, pool_overflow=0) as databases:

        async def run_async(*statements):
            async with databases.tenant_session(tenant_a) as session:
                for statement, *parameters in statements:
                    result = await session.execute(text(statement), *parameters)
                return result.all() if result.returns_rows else None

        async def run_sync(*statements):
            with databases.sync.tenant_session(tenant_a) as session:
                for statement, *parameters in statements:
                    result = session.execute(text(statement), *parameters)
                return result.all() if result.returns_rows else None

        run: Any = run_async if request.param == "async" else run_sync
        run.databases = databases
        run.kind = request.param
        yield run


@pytest.mark.parametrize("statement", REFUSED)
async def test_what_would_change_or_outlive_the_binding_is_refused(run, tenant_b, statement):
    with pytest.raises(StatementRefused):
        await run((statement.format(b=tenant_b.id).replace(":", r"\:"),))
    assert await run(("SELECT current_setting('search_path')",)) == [("pool, pg_temp",)]


@pytest.mark.parametrize("statement", ALLOWED)
async def test_what_ends_with_the_transaction_is_allowed(run, statement):
    await run((statement.replace(": ", r"\: "),))


async def test_the_name_of_a_setting_may_be_a_parameter(run, tenant_b):
    with pytest.raises(StatementRefused):
        await run(("SELECT set_config(:name, :value, true)", {"name": "app.tenant_id", "value": str(tenant_b.id)}))


async def test_what_set_config_leaves_is_reset_before_the_next_user(run):
    backend = "SELECT pg_backend_pid(), coalesce(current_setting('product.actor', true), '')"
    before = await run((backend,))
    await run(("SELECT set_config('product.actor', 'me', false)",))
    after = await run((backend,))
    assert after == before, "the same connection, as it was"


async def test_autocommit_is_refused(run, tenant_a):
    with pytest.raises(StatementRefused):  # noqa: PT012 - two ways to the same
        if run.kind == "async":
            async with run.databases.tenant_session(tenant_a) as session:
                await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        else:
            with run.databases.sync.tenant_session(tenant_a) as session:
                session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})


async def test_another_isolation_level_is_bound_as_well(database, tenant_a):
    async with database.databases() as databases, databases.tenant_session(tenant_a) as session:
        await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        row = (
            await session.execute(
                text("SELECT current_setting('transaction_isolation'), current_setting('app.tenant_id')")
            )
        ).one()
        assert tuple(row) == ("serializable", str(tenant_a.id))


async def test_a_session_never_changes_its_tenant(database, tenant_a, tenant_b):
    async with database.databases() as databases, databases.tenant_session(tenant_a) as session:
        for name in ("tenant_id", "tenant_key", "binding"):
            with pytest.raises(AttributeError):
                setattr(session.sync_session, name, tenant_b.id)
        with pytest.raises(TenantAlreadyBound):
            await session.execute(text("SELECT 1"), bind_arguments={"bind": databases.system.sync_engine})
        session.sync_session.bind = databases.system.sync_engine
        with pytest.raises(TenantAlreadyBound):
            await session.execute(text("SELECT 1"))
        session.sync_session.bind = None
        assert await session.scalar(text("SELECT current_setting('app.tenant_id')")) == str(tenant_a.id)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_what_slips_past_never_shows_another_tenants_rows(database, tenant_a, tenant_b, kind):
    """The driver's own connection is not watched. The next tenant's bind notices, and the connection is closed."""
    leave = f"SELECT set_config('app.tenant_id', '{tenant_a.id}', false)"
    async with database.databases(pool_size=1, pool_overflow=0) as databases:
        if kind == "async":
            async with databases.engine_for(tenant_a) as engine, engine.connect() as connection:
                raw = await connection.get_raw_connection()
                await raw.driver_connection.execute(leave)
            with pytest.raises(TenantAlreadyBound):
                async with databases.tenant_session(tenant_b) as session:
                    await session.execute(text("SELECT 1"))
            async with databases.tenant_session(tenant_b) as session:
                assert await session.scalar(text("SELECT current_setting('app.tenant_id')")) == str(tenant_b.id)
        else:
            with databases.sync.engine_for(tenant_a) as engine, engine.connect() as connection:
                connection.connection.driver_connection.execute(leave)
                connection.connection.driver_connection.commit()
            with pytest.raises(TenantAlreadyBound), databases.sync.tenant_session(tenant_b) as session:
                session.execute(text("SELECT 1"))
            with databases.sync.tenant_session(tenant_b) as session:
                assert session.scalar(text("SELECT current_setting('app.tenant_id')")) == str(tenant_b.id)


HOSTILE = ['x", "public', 'a"b', "a'b", "a;DROP SCHEMA pool", "pool, public", '"', "ä €", "a\\", "E'\\'"]


@pytest.mark.parametrize("schema", HOSTILE)
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_schema_by_a_hostile_name_is_one_schema(database, tenant_a, schema, kind):
    """Names are made from ids; this is about what would happen if they were not."""
    path = text("SELECT current_schemas(false)")
    async with database.connect() as admin, database.databases(pool_schema=schema) as databases:
        await admin.execute(f"CREATE SCHEMA {quote(schema)}")
        await admin.execute(f"GRANT USAGE ON SCHEMA {quote(schema)} TO app_service")
        if kind == "async":
            async with databases.tenant_session(tenant_a) as session:
                seen = await session.scalar(path)
        else:
            with databases.sync.tenant_session(tenant_a) as session:
                seen = session.scalar(path)
        await admin.execute(f"DROP SCHEMA {quote(schema)}")
        assert seen == [schema]
        assert await admin.fetchval("SELECT to_regclass('pool.document') IS NOT NULL")


async def test_a_schema_that_does_not_exist_is_no_other(database, tenant_a):
    async with database.databases(pool_schema='nowhere", "pool') as databases:
        with pytest.raises(DBAPIError, match="does not exist"):
            async with databases.tenant_session(tenant_a) as session:
                await session.execute(text("SELECT * FROM document"))


def test_the_schema_of_a_tenant_is_made_of_its_id_alone(tenant_factory):
    tenant = tenant_factory(slug='x"; DROP SCHEMA pool', external_id="'; --")
    assert tenant_schema(tenant.id) == f"t_{tenant.id.hex}"


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", ["libs/tenancy/src/tenantry/x.py", "services/app/src/app_service/x.py"])
def test_a_statement_with_a_value_in_it_is_a_finding_of_the_linter(path):
    pasted = (
        'def find(name: str) -> str:\n    """A statement."""\n    return f"SELECT 1 FROM t WHERE name = \'{name}\'"\n'
    )
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "--stdin-filename", path, "-"]
    found = subprocess.run(command, cwd=ROOT, input=pasted, capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stderr
    assert "S608" in found.stdout
