"""A migrated database of a service for every test module, copied from a template."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

import asyncpg
from msgspec.structs import asdict

from tenantry.database import (
    TENANT_ID,
    Databases,
    DatabaseSettings,
    ServiceUrls,
    TenantColumn,
    create_service_database,
    migrate,
    tenant_database,
)
from tenantry.database._names import quote
from tenantry.database._url import dsn, with_database
from tenantry.database._warm_table import WARM_TABLE

T = TypeVar("T")

ROLES: Final = ("migrator", "service", "system", "provisioner", "backup")
PASSWORD: Final = "only-for-tests"  # noqa: S105 - the server of the tests is theirs alone

# TRUNCATE makes new files for a table and each of its indexes, and a test fills few tables of many.
_TRUNCATE: Final = r"""
    DO $$
    DECLARE
        candidate regclass;
        has_rows boolean;
        filled regclass[] := '{}';
    BEGIN
        FOR candidate IN
            SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'alembic_version'
               AND (n.nspname IN ('pool', 'system', 'jobs') OR n.nspname ~ '^t_[0-9a-f]{32}$')
        LOOP
            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', candidate) INTO has_rows;
            IF has_rows THEN
                filled := filled || candidate;
            END IF;
        END LOOP;
        IF filled <> '{}' THEN
            EXECUTE format('TRUNCATE %s CASCADE', array_to_string(filled, ', '));
        END IF;
    END $$
"""


@dataclass(slots=True)
class ServiceDatabase:
    """The database of one service, at the head of its migrations and empty, with URLs that have the right roles."""

    service: str
    name: str
    urls: ServiceUrls
    admin_url: str
    _tenants: list[UUID] = field(default_factory=list)

    def settings(self, **changes: Any) -> DatabaseSettings:
        """The settings that a process of the service would read from its environment, all roles included."""
        urls = {
            "database_url": self.urls.service,
            "system_database_url": self.urls.system,
            "migrator_database_url": self.urls.migrator,
            "provisioner_database_url": self.urls.provisioner,
        }
        return DatabaseSettings(**(urls | changes))

    def environment(self) -> dict[str, str]:
        """The same as environment variables, for a process."""
        prefix = self.service.upper()
        settings = asdict(self.settings())
        urls = {f"{prefix}_{name.upper()}": url for name, url in settings.items() if "url" in name and url}
        # A process that is killed at the end of a test would leave its warm databases on the server.
        return {f"{prefix}_WARM_SCHEMAS": "0", f"{prefix}_WARM_DATABASES": "0", **urls}

    @asynccontextmanager
    async def databases(
        self, *, follow_placement: bool = True, tenant_column: TenantColumn = TENANT_ID, **changes: Any
    ) -> AsyncIterator[Databases]:
        """The service's own way in; ``changes`` are fields of :class:`DatabaseSettings`."""
        settings = self.settings(**changes)
        databases = Databases(self.service, settings, follow_placement=follow_placement, tenant_column=tenant_column)
        try:
            yield databases
        finally:
            await databases.dispose()

    @asynccontextmanager
    async def connect(self, role: str | None = None) -> AsyncIterator[asyncpg.Connection]:
        """A plain connection: as a role (``service``, ``system``, ...), or as the server's administrator.

        For looking behind the scenes: the administrator sees the rows of every tenant.
        """
        url = getattr(self.urls, role) if role else with_database(self.admin_url, self.name)
        connection = await asyncpg.connect(dsn(url))
        try:
            yield connection
        finally:
            await connection.close()

    async def truncate(self) -> None:
        """Empties every table but the versions of the migrations, in the pool, the system and the tenants' schemas."""
        async with self.connect() as connection:
            await connection.execute(_TRUNCATE)

    def owns_database_of(self, tenant_id: UUID) -> None:
        """Says that a test made a database for this tenant, which is dropped with this one."""
        self._tenants.append(tenant_id)

    async def drop(self) -> None:
        warm = await self._warm_databases()
        await drop_databases(
            self.admin_url, self.name, *warm, *(tenant_database(self.service, id_) for id_ in self._tenants)
        )

    async def _warm_databases(self) -> list[str]:
        async with self.connect() as connection:
            if await connection.fetchval("SELECT to_regclass($1) IS NULL", WARM_TABLE):
                return []
            rows = await connection.fetch(f"SELECT name FROM {WARM_TABLE} WHERE isolation = 'database'")  # noqa: S608
        return [row["name"] for row in rows]


class ServiceTemplates:
    """The migrated templates of a test session, one for a service and its migrations; databases are copies of them."""

    def __init__(self, admin_url: str) -> None:
        self._admin_url = admin_url
        self._run = uuid4().hex[:8]
        self._templates: dict[tuple[str, Path | None], str] = {}
        self._count = 0

    def create(self, service: str, migrations: Path | None = None) -> ServiceDatabase:
        """A new database of ``service``, with its own migrations or those in the directory ``migrations``.

        May be called inside and outside an event loop; blocks for its time.
        """
        return run_aside(self._create(service, migrations))

    def drop(self) -> None:
        """Drops the templates."""
        run_aside(drop_databases(self._admin_url, *self._templates.values()))

    async def _create(self, service: str, migrations: Path | None) -> ServiceDatabase:
        template = self._templates.get((service, migrations))
        if template is None:
            template = f"test_{self._run}_{service}_t{len(self._templates)}"
            urls = await create_service_database(self._admin_url, service, _passwords(), name=template)
            await migrate(urls.migrator, service, directory=migrations)
            self._templates[service, migrations] = template
        self._count += 1
        name = f"{template}_{self._count}"
        connection = await asyncpg.connect(dsn(self._admin_url))
        try:
            await connection.execute(f"CREATE DATABASE {quote(name)} OWNER {service}_owner TEMPLATE {quote(template)}")
        finally:
            await connection.close()
        # Grants on the database itself are not copied from a template; the operator's script gives them again.
        urls = await create_service_database(self._admin_url, service, _passwords(), name=name)
        return ServiceDatabase(service, name, urls, self._admin_url)


async def drop_databases(admin_url: str, *names: str) -> None:
    """Drops the databases, whoever is still connected; those that are gone already do not matter."""
    connection = await asyncpg.connect(dsn(admin_url))
    try:
        for name in names:
            await connection.execute(f"DROP DATABASE IF EXISTS {quote(name)} WITH (FORCE)")
    finally:
        await connection.close()


def run_aside(work: Coroutine[Any, Any, T]) -> T:
    """Runs ``work`` on an event loop of its own, so that a fixture need not know whether one is running."""
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(asyncio.run, work).result()


def _passwords() -> dict[str, str]:
    return dict.fromkeys(ROLES, PASSWORD)
