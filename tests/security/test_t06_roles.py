"""T6: no process runs with a role that row level security does not hold, and no role becomes one that it does not."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tenantry.database import SyncDatabases, UnsafeRole
from tenantry.database._url import with_database, with_user


@pytest.fixture(scope="module")
def database(service_database):
    return service_database("app")


# What a role may have beside the right to log in, and each of which is a way past the policies.
UNSAFE = {
    "bypassing": "BYPASSRLS",
    "replicating": "REPLICATION",
    "making roles": "CREATEROLE",
    "reading files": "IN ROLE pg_read_server_files",
    "running programs": "IN ROLE pg_execute_server_program",
}


@pytest.fixture
async def url_of(database):
    """The URL of a role that has one of `UNSAFE` and nothing else."""
    async with database.connect() as admin:
        made: list[str] = []

        async def url_of(kind):
            name = f"unsafe_{len(made)}_{database.name}"
            await admin.execute(f"CREATE ROLE {name} LOGIN {UNSAFE[kind]} PASSWORD 'only-for-tests'")
            made.append(name)
            await admin.execute(f"GRANT CONNECT ON DATABASE {database.name} TO {name}")
            return with_user(database.urls.service, name, "only-for-tests")

        yield url_of
        for name in made:
            await admin.execute(f"DROP OWNED BY {name}")
            await admin.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("kind", [*UNSAFE, "superuser", "migrator", "provisioner", "system", "backup"])
async def test_a_role_that_could_look_past_the_policies_is_refused_at_the_start(database, url_of, kind):
    if kind in UNSAFE:
        url = await url_of(kind)
    elif kind == "superuser":
        url = with_database(database.admin_url, database.name)
    else:
        url = getattr(database.urls, kind)
    async with database.databases(database_url=url) as databases:
        with pytest.raises(UnsafeRole):
            await databases.verify_roles()
    sync = SyncDatabases("app", database.settings(database_url=url))
    with pytest.raises(UnsafeRole):
        sync.verify_roles()
    sync.dispose()


async def test_the_roles_that_serve_are_accepted_by_both(database):
    async with database.databases() as databases:
        await databases.verify_roles()
        databases.sync.verify_roles()


@pytest.mark.parametrize("role", ["app_owner", "app_system", "app_migrator", "app_provisioner", "tenantry_backup"])
@pytest.mark.parametrize("statement", ["SET ROLE {}", "SET LOCAL ROLE {}", "SET SESSION AUTHORIZATION {}"])
async def test_the_service_role_cannot_become_another(database, role, statement):
    """On a connection of its own, so that it is the server that refuses and not the library."""
    async with database.connect("service") as connection, connection.transaction():
        with pytest.raises(Exception, match="permission denied"):
            await connection.execute(statement.format(role))


async def test_turning_row_security_off_shows_nothing(database, tenant_a):
    async with database.databases() as databases, databases.tenant_session(tenant_a) as session:
        await session.execute(
            text(
                "INSERT INTO document (tenant_id, id, title, body, tags, version, created_at, updated_at)"
                " VALUES (:tenant, gen_random_uuid(), 't', '', '{}', 1, now(), now())"
            ),
            {"tenant": tenant_a.id},
        )
    async with database.connect("service") as connection:
        await connection.execute("SET row_security = off")
        with pytest.raises(Exception, match="row-level security"):
            await connection.fetch("SELECT * FROM pool.document")


async def test_truncate_is_refused_to_every_role_that_serves(database, tenant_a):
    async with database.databases() as databases:
        for open_session in (lambda: databases.tenant_session(tenant_a), databases.system_session):
            with pytest.raises(DBAPIError, match="permission denied"):
                async with open_session() as session:
                    await session.execute(text("TRUNCATE pool.document"))
