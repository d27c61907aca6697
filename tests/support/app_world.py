"""Two tenants of the app under one isolation pattern, with the same natural keys and something to hide each."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg
import httpx
import msgspec
from secret_watch import watched

from app_service.models import CATALOGUE
from tenantry import Isolation, Tenant, uuid7
from tenantry.database import Databases, Places, tenant_database, tenant_schema
from tenantry.testing import ServiceDatabase, Side, TenantFactory, rows_of
from tenantry.testing._databases import run_aside

SHARED = "shared"
"""A word in every document of both tenants."""

FILE_NAMES = ("notes.txt", "plan.txt")
"""Of the files of every document of both tenants."""


@dataclass(frozen=True, slots=True)
class Planted:
    """What a tenant has, and by what one would recognise it."""

    canary: str
    document_ids: list[UUID]
    content_ids: list[UUID]
    file_names: list[str]
    export_id: UUID


@dataclass(slots=True)
class World:
    isolation: Isolation
    database: ServiceDatabase
    a: Tenant
    b: Tenant
    unknown_tenant: UUID = field(default_factory=uuid7)
    _planted: dict[UUID, Planted] = field(default_factory=dict)

    @property
    def shares_place(self) -> bool:
        """Whether rows of A and B lie in the same tables."""
        return self.isolation is Isolation.POOL

    def ids(self, tenant: Tenant) -> dict[str, str]:
        """Ids of the tenant's rows, by the names that the routes have for them."""
        planted = self._planted[tenant.id]
        return {
            "document_id": str(planted.document_ids[0]),
            "name": planted.file_names[0],
            "export_id": str(planted.export_id),
        }

    def unknown_ids(self) -> dict[str, str]:
        """Ids of nothing, of the same form."""
        return {"document_id": str(uuid7()), "name": "nothing.txt", "export_id": str(uuid7())}

    def canary(self, tenant: Tenant) -> str:
        """A word that stands in every text of the tenant and nowhere else."""
        return self._planted[tenant.id].canary

    def leaks(self, response: httpx.Response, *, of: Tenant, asked: httpx.Request | None = None) -> list[str]:
        """The tenant's words and ids in a response, but for those that the request itself held."""
        planted = self._planted[of.id]
        words = [planted.canary, str(of.id), of.id.hex, of.slug, of.name, str(of.external_id)]
        words += [str(each) for each in (*planted.document_ids, *planted.content_ids, planted.export_id)]
        given = "" if asked is None else str(asked.url) + repr(asked.headers.raw) + asked.content.decode("latin-1")
        answer = response.content.decode("latin-1") + repr(response.headers.raw)
        return [word for word in words if word.lower() in answer.lower() and word.lower() not in given.lower()]

    def changed(self, tenant: Tenant, **changes: Any) -> Tenant:
        return msgspec.structs.replace(tenant, **changes)

    def schema(self, tenant: Tenant) -> str:
        return tenant_schema(tenant.id) if self.isolation is Isolation.SCHEMA else "pool"

    def databases(self, **changes: Any) -> Any:
        """The service's own way in; to be used as an async context manager."""
        return self.database.databases(**changes)

    async def connect(self, place: Tenant, *, role: str = "service") -> asyncpg.Connection:
        """A plain connection to where `place` has its rows."""
        url = urlsplit(getattr(self.database.urls, role))
        if self.isolation is Isolation.DATABASE:
            url = url._replace(path="/" + tenant_database("app", place.id))
        return await asyncpg.connect(urlunsplit(url))

    async def bind(self, connection: asyncpg.Connection, tenant: Tenant, place: Tenant | None = None) -> None:
        await connection.execute("SELECT tenantry.bind($1, $2, false)", str(tenant.id), self.schema(place or tenant))

    @asynccontextmanager
    async def transaction(self, place: Tenant, *, bound_to: Tenant | None) -> AsyncIterator[asyncpg.Connection]:
        """The service role in a transaction where `place` has its rows, in the name of `bound_to`; rolled back."""
        connection = await self.connect(place)
        transaction = connection.transaction()
        await transaction.start()
        try:
            if bound_to is not None:
                await self.bind(connection, bound_to, place)
            yield connection
        finally:
            await transaction.rollback()
            await connection.close()

    async def fingerprint(self, tenant: Tenant) -> dict[str, str]:
        """A hash of everything that the tenant has in each table, its idempotency keys and outbox not included."""
        connection = await self.connect(tenant, role="system")
        try:
            return {
                table: await connection.fetchval(
                    f"SELECT md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), ''))"
                    f" FROM {self.schema(tenant)}.{table} AS t WHERE tenant_id = $1",
                    tenant.id,
                )
                for table in CATALOGUE.tenant_tables
            }
        finally:
            await connection.close()

    async def build(self) -> None:
        """Provision both tenants as the app does, and plant rows in every table."""
        places = Places("app", self.database.settings())
        for tenant in (self.a, self.b):
            if self.isolation is Isolation.DATABASE:
                self.database.owns_database_of(tenant.id)
            assert tenant.placement is not None
            await places.provide(tenant.id, tenant.placement)
            await self._plant(tenant)

    async def _plant(self, tenant: Tenant) -> None:
        canary = f"canary{tenant.slug.replace('-', '')}{uuid7().hex[-8:]}"
        planted = Planted(watched(canary), [uuid7(), uuid7()], [], list(FILE_NAMES), uuid7())
        self._planted[tenant.id] = planted
        connection = await self.connect(tenant)
        try:
            async with connection.transaction():
                await self.bind(connection, tenant)
                for document_id in planted.document_ids:
                    await self._plant_document(connection, tenant, planted, document_id)
                await self._plant_export(connection, tenant, planted)
                await self._add_to_total(connection, tenant, 5 * len(canary))
        finally:
            await connection.close()

    async def plant(self, databases: Databases, tenant: Tenant) -> dict[str, str]:
        """One more document with two files, and an export; their ids, by the names that the routes have for them."""
        planted = replace(self._planted[tenant.id], content_ids=[], export_id=uuid7())
        document_id = uuid7()
        async with databases.tenant_session(tenant) as session:
            connection = (await (await session.connection()).get_raw_connection()).driver_connection
            assert connection is not None
            await self._plant_document(connection, tenant, planted, document_id)
            await self._plant_export(connection, tenant, planted)
            await self._add_to_total(connection, tenant, 3 * len(planted.canary))
        return {"document_id": str(document_id), "name": FILE_NAMES[0], "export_id": str(planted.export_id)}

    def side(self, tenant: Tenant, headers: Mapping[str, str], databases: Databases) -> Side:
        """The tenant as a sweep sees it."""
        return Side(
            headers=headers,
            words=[self.canary(tenant)],
            names=[str(tenant.id), tenant.slug, str(tenant.external_id)],
            plant=lambda: self.plant(databases, tenant),
            rows=rows_of(databases, CATALOGUE, tenant),
        )

    async def _add_to_total(self, connection: asyncpg.Connection, tenant: Tenant, size: int) -> None:
        await connection.execute(
            "INSERT INTO storage_total (tenant_id, bytes, changed_at) VALUES ($1, $2, now())"
            " ON CONFLICT (tenant_id) DO UPDATE SET bytes = storage_total.bytes + excluded.bytes",
            tenant.id,
            size,
        )

    async def _plant_document(
        self, connection: asyncpg.Connection, tenant: Tenant, planted: Planted, document_id: UUID
    ) -> None:
        content = planted.canary.encode()
        await connection.execute(
            "INSERT INTO document (tenant_id, id, title, body, tags, version, created_at, updated_at)"
            " VALUES ($1, $2, $3, $4, $5, 1, now(), now())",
            tenant.id,
            document_id,
            f"{SHARED} {planted.canary}",
            f"{SHARED} body {planted.canary}",
            [SHARED, planted.canary],
        )
        for name in planted.file_names:
            content_id = uuid7()
            planted.content_ids.append(content_id)
            await connection.execute(
                "INSERT INTO document_file (tenant_id, document_id, name, content_id, content_type, size, sha256,"
                " version, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, now())",
                tenant.id,
                document_id,
                name,
                content_id,
                f"text/{planted.canary}",
                len(content),
                hashlib.sha256(content).digest(),
            )
            await connection.execute("INSERT INTO file_chunk VALUES ($1, $2, 0, $3)", tenant.id, content_id, content)

    async def _plant_export(self, connection: asyncpg.Connection, tenant: Tenant, planted: Planted) -> None:
        content = planted.canary.encode()
        await connection.execute(
            "INSERT INTO export (tenant_id, id, job_id, created_at, expires_at, finished_at, documents, files, size,"
            " sha256) VALUES ($1, $2, 0, now(), now() + interval '7 days', now(), 2, 4, $3, $4)",
            tenant.id,
            planted.export_id,
            len(content),
            hashlib.sha256(content).digest(),
        )
        await connection.execute(
            "INSERT INTO export_chunk VALUES ($1, $2, 0, $3)", tenant.id, planted.export_id, content
        )


def new_world(database: ServiceDatabase, isolation: Isolation) -> World:
    """Both tenants, not yet built; both have an external id, as a company's own tenants would."""
    make = TenantFactory()
    a, b = (
        make(isolation=isolation, slug=f"tenant-{letter}", name=f"Name of {letter}", external_id=f"org-47-{letter}")
        for letter in ("a", "b")
    )
    return World(isolation, database, a, b)


def built_world(database: ServiceDatabase, isolation: Isolation) -> World:
    """The same, built; on an event loop of its own, because nothing of the world belongs to one."""
    world = new_world(database, isolation)
    run_aside(world.build())
    return world
