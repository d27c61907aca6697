"""Takes back the schema or the database of a tenant that has never been active."""

from typing import Final
from uuid import UUID

import asyncpg

from tenantry._errors import Conflict
from tenantry._tenant import Isolation
from tenantry.database._names import RoleNames, quote, tenant_database, tenant_schema
from tenantry.database._url import dsn

# The locks that `create_tenant_database` and `migrate` take: a place that is being made is dropped when it is there.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
_SESSION_LOCK: Final = "SELECT pg_advisory_lock(hashtextextended($1, 0))"


class PlaceInUse(Conflict):
    """Somebody is connected to the tenant's database."""

    type = "place-in-use"
    title = "The tenant's place is in use"


async def release_place(provisioner_url: str, service: str, tenant_id: UUID, isolation: Isolation) -> bool:
    """Drop what was made for the tenant in this service's databases, with everything in it; says whether it was there.

    Only for a tenant that holds no data: whoever calls this has made sure of it. A pool tenant has no place of its own.
    May be repeated. Raises `PlaceInUse`.
    """
    if isolation is Isolation.POOL:
        return False
    connection = await asyncpg.connect(dsn(provisioner_url))
    try:
        if isolation is Isolation.SCHEMA:
            return await drop_schema(connection, service, tenant_schema(tenant_id))
        return await drop_database(connection, tenant_database(service, tenant_id))
    finally:
        await connection.close()


async def drop_schema(connection: "asyncpg.Connection[asyncpg.Record]", service: str, schema: str) -> bool:
    """Drop a schema of tenants with everything in it; says whether it was there. May be repeated."""
    async with connection.transaction():
        await connection.execute(_LOCK, f"tenantry.migrate.{schema}")
        found: bool = await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", quote(schema))
        await connection.execute(f"SET LOCAL ROLE {quote(RoleNames(service).owner)}")
        await connection.execute(f"DROP SCHEMA IF EXISTS {quote(schema)} CASCADE")
    return found


async def drop_database(connection: "asyncpg.Connection[asyncpg.Record]", database: str) -> bool:
    """Drop a database of a tenant; says whether it was there. May be repeated. Raises `PlaceInUse`."""
    # DROP DATABASE is not for transactions; the lock goes with the connection.
    await connection.execute(_SESSION_LOCK, f"tenantry.{database}")
    found: bool = await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {quote(database)}")
    except asyncpg.ObjectInUseError as error:
        raise PlaceInUse(str(error)) from error
    return found
