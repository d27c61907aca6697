"""What a service's env.py calls, so that Alembic's own command line works on the same trees.

Deployments use :func:`tenantry.database.migrate`; this is for ``alembic current``, ``history``, ``stamp`` and for
trying one revision while writing it.
"""

import asyncio
import os
from pathlib import Path

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tenantry.database._errors import MigrationError
from tenantry.database._names import POOL_SCHEMA, SYSTEM_SCHEMA, RoleNames, quote
from tenantry.database._url import sqlalchemy_url


def run_migrations_env() -> None:
    """Runs the command that Alembic was called with, as the owner, in one transaction.

    ``-x branch=system`` works on the system schema, ``-x schema=...`` on a tenant's; the default is ``pool``. The URL
    comes from ``<SERVICE>_MIGRATOR_DATABASE_URL``.
    """
    arguments = context.get_x_argument(as_dictionary=True)
    schema = SYSTEM_SCHEMA if arguments.get("branch") == "system" else str(arguments.get("schema", POOL_SCHEMA))
    service = _service()
    variable = f"{service.upper()}_MIGRATOR_DATABASE_URL"
    if context.is_offline_mode() or variable not in os.environ:
        msg = f"migrations run online, with {variable} set"
        raise MigrationError(msg)
    asyncio.run(_run(os.environ[variable], RoleNames(service), schema))


def _service() -> str:
    """The service is the directory above ``migrations``, in the repository and in a wheel (``<service>_service``)."""
    directory = Path(context.script.dir).resolve()
    return directory.parent.name.removesuffix("_service")


async def _run(url: str, roles: RoleNames, schema: str) -> None:
    engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
    async with engine.connect() as connection, connection.begin():
        await connection.run_sync(_run_command, roles, schema)
    await engine.dispose()


def _run_command(connection: Connection, roles: RoleNames, schema: str) -> None:
    connection.exec_driver_sql(f"SET LOCAL ROLE {quote(roles.owner)}")
    connection.exec_driver_sql(f"SET LOCAL search_path = {quote(schema)}")
    context.configure(connection=connection, version_table_schema=schema)
    context.run_migrations()
