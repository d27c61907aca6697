"""Every place where rows of a tenant may lie in a service's servers, found by name, whatever the placement says now."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tenantry.database import Databases, DataCatalogue, tenant_database, tenant_schema
from tenantry.database._names import POOL_SCHEMA


@dataclass(frozen=True, slots=True)
class Place:
    """`fixed` is the rows about the tenant beside its places. `own` places are the tenant's alone."""

    kind: Literal["fixed", "pool", "schema", "database"]
    schema: str
    database: str | None = None

    @property
    def own(self) -> bool:
        return self.kind in {"schema", "database"}

    @property
    def label(self) -> str:
        """As progress remembers it."""
        return self.kind if not self.own else f"{self.kind} {self.database or self.schema}"


_HAS_SCHEMA = text("SELECT to_regnamespace(quote_ident(:name)) IS NOT NULL")
_HAS_DATABASE = text("SELECT EXISTS (SELECT FROM pg_database WHERE datname = :name)")


async def find_places(databases: Databases, catalogue: DataCatalogue, tenant_id: UUID) -> list[Place]:
    """The places that exist; a tenant that was moved, or whose move was broken off, has rows in more than one."""
    schema, database = tenant_schema(tenant_id), tenant_database(catalogue.service, tenant_id)
    async with databases.system.connect() as connection:
        has_schema = bool(await connection.scalar(_HAS_SCHEMA, {"name": schema}))
        has_database = bool(await connection.scalar(_HAS_DATABASE, {"name": database}))
    return [
        *([Place("database", POOL_SCHEMA, database)] if has_database else []),
        *([Place("schema", schema)] if has_schema else []),
        *([Place("pool", POOL_SCHEMA)] if catalogue.tenant_tables else []),
        Place("fixed", ""),
    ]


@asynccontextmanager
async def connected(databases: Databases, place: Place) -> AsyncIterator[AsyncConnection]:
    """A connection of the system role to the database of the place, without a transaction."""
    if place.database is None:
        async with databases.system.connect() as connection:
            yield connection
        return
    # A pool would hold the database open against its own end.
    engine: AsyncEngine = create_async_engine(
        databases.system.url.set(database=place.database), poolclass=NullPool, hide_parameters=True
    )
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()
