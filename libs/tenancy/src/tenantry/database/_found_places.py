"""The places that are there in a store, whoever they were made for."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from tenantry._tenant import Isolation
from tenantry.database._names import POOL_SCHEMA, SYSTEM_SCHEMA, literal, quote, tenant_database, tenant_schema
from tenantry.database._url import dsn, with_database

# Each is a connection of its own: enough to be done with some hundred databases in seconds.
_AT_ONCE: Final = 4
_BEHIND_EVERY_ID: Final = "g"

# The names of places sort as the ids that they hold, in the order of bytes.
_SCHEMAS: Final = r"""
    SELECT nspname AS name FROM pg_namespace
     WHERE nspname ~ '^t_[0-9a-f]{32}$'
       AND nspname::text COLLATE "C" > $1 AND nspname::text COLLATE "C" <= $2
"""
_WITH_LEDGER: Final = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'alembic_version'"
_DATABASES: Final = """
    SELECT datname AS name, shobj_description(oid, 'pg_database') IS NOT DISTINCT FROM $3 AS ours FROM pg_database
     WHERE datname ~ $4 AND datname::text COLLATE "C" > $1 AND datname::text COLLATE "C" <= $2
"""


@dataclass(frozen=True, slots=True)
class FoundPlace:
    """A schema or a database of a tenant.

    `revision` is None where it was not asked for, and empty where there are no tables. `ours` is False for a database
    that another installation on the same server may have made.
    """

    tenant_id: UUID
    isolation: Isolation
    store: str
    ours: bool
    revision: str | None = None

    def name_in(self, service: str) -> str:
        """The name of the schema or the database."""
        if self.isolation is Isolation.SCHEMA:
            return tenant_schema(self.tenant_id)
        return tenant_database(service, self.tenant_id)


def mark_of(database: str) -> str:
    """What the database of a tenant says of whose it is: others on the server may belong to the same service."""
    return f"place of {database}"


async def find_in_store(
    url: str, service: str, store: str, *, after: UUID | None, until: UUID | None, inspected: Collection[UUID]
) -> list[FoundPlace]:
    """The places of the tenants after `after` up to and with `until`, those of the `inspected` with their revisions.

    `url` is the provisioner's. Raises what the server says.
    """
    connection = await asyncpg.connect(dsn(url))
    try:
        schemas = [UUID(row["name"][2:]) for row in await connection.fetch(_SCHEMAS, *_names("t_", after, until))]
        revisions = await _schema_revisions(connection, [each for each in schemas if each in inspected])
        prefix = f"{service}_t_"
        mark = mark_of(await connection.fetchval("SELECT current_database()"))
        pattern = f"^{prefix}[0-9a-f]{{32}}$"
        databases = await connection.fetch(_DATABASES, *_names(prefix, after, until), mark, pattern)
    finally:
        await connection.close()
    found = [
        FoundPlace(tenant_id, Isolation.SCHEMA, store, ours=True, revision=revisions.get(tenant_id))
        for tenant_id in schemas
    ]
    slots = asyncio.Semaphore(_AT_ONCE)

    async def look_into(row: asyncpg.Record) -> FoundPlace:
        tenant_id = UUID(row["name"].removeprefix(prefix))
        revision = None
        if tenant_id in inspected:
            async with slots:
                revision = await _database_revision(with_database(url, row["name"]))
        return FoundPlace(tenant_id, Isolation.DATABASE, store, ours=row["ours"], revision=revision)

    return found + await asyncio.gather(*map(look_into, databases))


def _names(prefix: str, after: UUID | None, until: UUID | None) -> tuple[str, str]:
    return prefix + (after.hex if after else ""), prefix + (until.hex if until else _BEHIND_EVERY_ID)


async def _schema_revisions(
    connection: "asyncpg.Connection[asyncpg.Record]", tenants: Sequence[UUID]
) -> dict[UUID, str]:
    if not tenants:
        return {}
    migrated = {row[0] for row in await connection.fetch(_WITH_LEDGER)}
    revisions = dict.fromkeys(tenants, "")
    wanted = [each for each in tenants if tenant_schema(each) in migrated]
    if wanted:
        each_one = " UNION ALL ".join(
            f"SELECT {literal(str(tenant))}::uuid, (SELECT version_num FROM {quote(tenant_schema(tenant))}.alembic_version)"  # noqa: S608, E501 - quoted
            for tenant in wanted
        )
        revisions |= {tenant: revision or "" for tenant, revision in await connection.fetch(each_one)}
    return revisions


async def _database_revision(url: str) -> str:
    connection = await asyncpg.connect(dsn(url))
    try:
        versions = [
            await connection.fetchval(f"SELECT version_num FROM {schema}.alembic_version")  # noqa: S608 - constants
            for schema in (SYSTEM_SCHEMA, POOL_SCHEMA)
        ]
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return ""
    finally:
        await connection.close()
    return " ".join(version or "" for version in versions)
