"""The migration runner: idempotent, safe at a concurrent start, all or nothing, one version a schema."""

import asyncio
import shutil
import sys
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from tenantry import uuid7
from tenantry.database import MigrationError, Migrator, create_service_database, migrate, tenant_schema
from tenantry.testing._databases import PASSWORD, ROLES, drop_databases

REVISION = """
from alembic import op

revision = "{name}"
down_revision = "{parent}"
branch = "tenant"


def upgrade():
    {body}
"""


@pytest.fixture
async def urls(postgres_url):
    """A database of the service without any table."""
    name = f"test_{uuid4().hex[:8]}_shelf"
    yield await create_service_database(postgres_url, "shelf", dict.fromkeys(ROLES, PASSWORD), name=name)
    await drop_databases(postgres_url, name)


@pytest.fixture
def tree(shelf, tmp_path):
    """The service's migrations in a directory of the test, and what adds one revision."""
    directory = tmp_path / "migrations"
    shutil.copytree(shelf.migrations, directory, ignore=shutil.ignore_patterns("__pycache__"))

    def extend(body, name="t0002"):
        (directory / "versions" / f"{name}_more.py").write_text(REVISION.format(name=name, parent="t0001", body=body))
        target = tmp_path / "extended"  # a tree is loaded once a process, so another tree is another directory
        shutil.copytree(directory, target)
        return target

    return extend


async def fetch(url, statement):
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def version(url, schema):
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET ROLE shelf_owner")
        return await connection.fetchval(f"SELECT version_num FROM {schema}.alembic_version")
    finally:
        await connection.close()


async def test_a_database_is_migrated_once(urls, shelf):
    assert await migrate(urls.migrator, "shelf", directory=shelf.migrations) == ["s0001", "t0001"]
    assert await migrate(urls.migrator, "shelf", directory=shelf.migrations) == []
    assert await version(urls.migrator, "system") == "s0001"
    assert await version(urls.migrator, "pool") == "t0001"


async def test_many_starts_at_once_migrate_once(urls, shelf):
    """In processes of their own, as replicas start."""
    program = (
        "import asyncio, sys; from pathlib import Path; from tenantry.database import migrate; "
        "print(asyncio.run(migrate(sys.argv[1], 'shelf', directory=Path(sys.argv[2]))))"
    )

    async def start():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, urls.migrator, str(shelf.migrations)), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        return process.returncode, output.decode().strip()

    outcomes = await asyncio.gather(*(start() for _ in range(3)))
    assert [code for code, _ in outcomes] == [0, 0, 0]
    applied = "".join(output for _, output in outcomes)
    assert applied.count("s0001") == applied.count("t0001") == 1


async def test_a_tenants_schema_gets_the_tenant_tables_only(urls, shelf):
    await migrate(urls.migrator, "shelf", directory=shelf.migrations)
    schema = tenant_schema(uuid7())
    assert await migrate(urls.provisioner, "shelf", schema, directory=shelf.migrations) == ["t0001"]
    tables = await fetch(urls.system, f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}' ORDER BY 1")
    assert tables == ["alembic_version", "book", "loan"]
    owners = await fetch(urls.system, f"SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = '{schema}'")
    assert owners == ["shelf_owner"]


async def test_a_failed_migration_leaves_the_schema_as_it_was(urls, shelf, tree):
    await migrate(urls.migrator, "shelf", directory=shelf.migrations)
    broken = tree('op.execute("CREATE TABLE half ()"); op.execute("SELECT 1 / 0")')
    with pytest.raises(DBAPIError, match="division by zero"):
        await migrate(urls.migrator, "shelf", directory=broken)
    assert await version(urls.migrator, "pool") == "t0001"
    assert await fetch(urls.system, "SELECT tablename FROM pg_tables WHERE tablename = 'half'") == []


async def test_several_statements_in_one_call_are_refused(urls, tree):
    double = tree('op.execute("CREATE TABLE one (); CREATE TABLE two ()")')
    with pytest.raises(DBAPIError, match="multiple commands"):
        await migrate(urls.migrator, "shelf", directory=double)


async def test_schemas_are_at_their_own_versions(urls, shelf, tree):
    await migrate(urls.migrator, "shelf", directory=shelf.migrations)
    behind, ahead = tenant_schema(uuid7()), tenant_schema(uuid7())
    extended = tree('op.execute("ALTER TABLE book ADD COLUMN isbn text")')
    async with Migrator(urls.migrator, "shelf", directory=extended) as migrator:
        assert await migrator.migrate(behind, "t0001") == ["t0001"]
        assert await migrator.migrate(ahead) == ["t0001", "t0002"]
        assert await migrator.migrate(behind) == ["t0002"]
        assert await migrator.migrate(ahead) == []


async def test_an_older_tree_leaves_a_newer_database_alone(urls, shelf, tree):
    await migrate(urls.migrator, "shelf", directory=tree("op.execute('CREATE TABLE later ()')"))
    with pytest.raises(MigrationError, match="t0002"):
        await migrate(urls.migrator, "shelf", directory=shelf.migrations)


async def test_a_migrator_may_be_used_again_after_a_failure(urls, shelf, tree):
    await migrate(urls.migrator, "shelf", directory=shelf.migrations)
    async with Migrator(urls.migrator, "shelf", directory=shelf.migrations) as migrator:
        with pytest.raises(MigrationError):
            await migrator.migrate(tenant_schema(uuid7()), "t0009")
        assert await migrator.migrate(tenant_schema(uuid7())) == ["t0001"]
