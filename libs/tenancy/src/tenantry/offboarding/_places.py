"""Every place where rows of a tenant may lie in a service's servers, found by name, whatever the placement says now."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from tenantry.database import Databases, DataCatalogue, tenant_database, tenant_schema
from tenantry.database._names import POOL_SCHEMA


@dataclass(frozen=True, slots=True)
class Place:
    """`fixed` is the rows about the tenant beside its places. `own` places are the tenant's alone.

    `store` None is the service's own.
    """

    kind: Literal["fixed", "pool", "schema", "database"]
    store: str | None
    schema: str
    database: str | None = None

    @property
    def own(self) -> bool:
        return self.kind in {"schema", "database"}

    @property
    def label(self) -> str:
        """As progress remembers it."""
        name = self.kind if not self.own else f"{self.kind} {self.database or self.schema}"
        return name if self.store is None else f"{name} in {self.store}"

    def label_of(self, table: str) -> str:
        """A table of the place as people read it."""
        return table if self.store is None and not self.own else f"{self.label}: {table}"


_HAS_SCHEMA = text("SELECT to_regnamespace(quote_ident(:name)) IS NOT NULL")
_HAS_DATABASE = text("SELECT EXISTS (SELECT FROM pg_database WHERE datname = :name)")


async def find_places(databases: Databases, catalogue: DataCatalogue, tenant_id: UUID) -> list[Place]:
    """The places that exist; a tenant that was moved, or whose move was broken off, has rows in more than one."""
    schema, database = tenant_schema(tenant_id), tenant_database(catalogue.service, tenant_id)
    places: list[Place] = []
    for store in databases.stores:
        async with databases.system_session(store) as session:
            if await session.scalar(_HAS_DATABASE, {"name": database}):
                places.append(Place("database", store, POOL_SCHEMA, database))
            if await session.scalar(_HAS_SCHEMA, {"name": schema}):
                places.append(Place("schema", store, schema))
        if catalogue.tenant_tables:
            places.append(Place("pool", store, POOL_SCHEMA))
        places.append(Place("fixed", store, ""))
    return places


def place_named(places: Iterable[Place], label: str) -> Place | None:
    """The place that progress remembers under this label; None where it is gone."""
    return next((place for place in places if place.label == label), None)


@asynccontextmanager
async def transaction(databases: Databases, place: Place) -> AsyncIterator[AsyncConnection]:
    """The system role in a transaction of the place's database, committed when the block ends without an error."""
    async with databases.system_session(place.store) as session:
        shared = await session.connection()
        if place.database is None:
            yield shared
            return
    # A pool would hold the database open against its own end.
    own = shared.engine.url.set(database=place.database)
    engine = create_async_engine(own, poolclass=NullPool, hide_parameters=True)
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()
