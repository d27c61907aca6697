"""Runs a service's migrations: the system branch once a database, the tenant branch once a schema.

One transaction a schema, under an advisory lock of that schema, with the version in ``<schema>.alembic_version``: a
start of many processes at once migrates once, and a schema that failed is as it was.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from weakref import WeakKeyDictionary

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationStep
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tenantry.database._names import (
    FUNCTION_SCHEMA,
    POOL_SCHEMA,
    SYSTEM_SCHEMA,
    RoleNames,
    quote,
)
from tenantry.database._tree import Branch, MigrationTree, load_tree, migrations_directory
from tenantry.database._url import sqlalchemy_url

# Alembic's `op` is one proxy for the whole process, so two migrations must not interleave in one. A lock belongs to the
# loop in which it was first contended, and tests have many.
_locks: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()


def _one_at_a_time() -> asyncio.Lock:
    return _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('tenantry.migrate.' || :schema, 0))")
_SCHEMA_EXISTS = text("SELECT to_regnamespace(:schema) IS NOT NULL")


async def migrate(
    url: str,
    service: str,
    schema: str = POOL_SCHEMA,
    target: str = "head",
    *,
    directory: Path | None = None,
) -> list[str]:
    """Brings a database, or one tenant's schema in it, to ``target`` and returns the revisions that were applied.

    ``url`` is of the migrator or the provisioner. For schema ``pool`` the system branch runs first, to its head; any
    other schema is a tenant's, is created if need be, and gets the tenant branch only. May be repeated and may be
    called by many processes at once. ``directory`` defaults to the service's own migrations.
    """
    async with Migrator(url, service, directory=directory) as migrator:
        return await migrator.migrate(schema, target)


class Migrator:
    """Migrates many schemas of one database over one connection, with the tree loaded once."""

    def __init__(self, url: str, service: str, *, directory: Path | None = None) -> None:
        self._roles = RoleNames(service)
        self._directory = directory or migrations_directory(service)
        self._engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)

    async def __aenter__(self) -> Self:
        self._connection = await self._engine.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()
        await self._engine.dispose()

    async def migrate(self, schema: str = POOL_SCHEMA, target: str = "head") -> list[str]:
        """As :func:`migrate`, on this connection."""
        tree = load_tree(self._directory)
        runs: list[tuple[Branch, str, str]] = [("tenant", schema, target)]
        if schema == POOL_SCHEMA:
            runs.insert(0, ("system", SYSTEM_SCHEMA, "head"))
        applied: list[str] = []
        for branch, run_schema, run_target in runs:
            async with _one_at_a_time(), self._connection.begin():
                applied += await self._connection.run_sync(
                    _migrate_schema, self._roles, tree, branch, run_schema, run_target
                )
        return applied


def _migrate_schema(
    connection: Connection, roles: RoleNames, tree: MigrationTree, branch: Branch, schema: str, target: str
) -> list[str]:
    connection.execute(_LOCK, {"schema": schema})
    connection.exec_driver_sql(f"SET LOCAL ROLE {quote(roles.owner)}")
    if not connection.scalar(_SCHEMA_EXISTS, {"schema": quote(schema)}):
        _create_schema(connection, roles, schema)
        if branch == "system":
            _create_schema(connection, roles, FUNCTION_SCHEMA)
    connection.exec_driver_sql(f"SET LOCAL search_path = {quote(schema)}")
    applied: list[str] = []

    def steps(heads: tuple[str, ...], _: MigrationContext) -> Iterator[MigrationStep]:
        for script in tree.pending(branch, heads[0] if heads else None, target):
            applied.append(script.revision)
            yield MigrationStep.upgrade_from_script(tree.scripts.revision_map, script)

    context = MigrationContext.configure(connection, opts={"fn": steps, "version_table_schema": schema})
    with Operations.context(context):
        context.run_migrations()
    return applied


def _create_schema(connection: Connection, roles: RoleNames, schema: str) -> None:
    connection.exec_driver_sql(f"CREATE SCHEMA {quote(schema)}")
    users = ", ".join(quote(role) for role in (roles.service, roles.system, roles.backup))
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {quote(schema)} TO {users}")
