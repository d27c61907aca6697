"""The places of tenants: their schemas and databases, handed over ready where one is, made on the spot elsewhere."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn
from uuid import UUID

import asyncpg
import structlog
from prometheus_client import Counter
from sqlalchemy.exc import DBAPIError

from tenantry._tenant import Isolation, Placement
from tenantry.database._errors import MigrationError, MissingUrl, UnknownStore
from tenantry.database._found_places import FoundPlace, find_in_store
from tenantry.database._migrations import migrate
from tenantry.database._names import tenant_database, tenant_schema
from tenantry.database._provisioning import create_database
from tenantry.database._releasing import release_place
from tenantry.database._settings import DatabaseSettings
from tenantry.database._tree import migrations_directory
from tenantry.database._url import dsn
from tenantry.database._warm_places import Heads, WarmPlaces, hand_over

log = structlog.get_logger(__name__)

# What the loss of a refiller, or places that an operator has dropped, can cost until the next look.
REFILL_SECONDS: Final = 30.0

_PLACES: Final = Counter(
    "tenant_places_total", "Places given to tenants, by whether they were ready", ["service", "isolation", "how"]
)


class Places:
    """Makes the schemas and databases of the tenants of ``service`` and takes them back, in every store.

    Needs the provisioner's URL of a store to work there. ``directory`` has the migrations, the service's by default.
    """

    def __init__(self, service: str, settings: DatabaseSettings, *, directory: Path | None = None) -> None:
        self._service = service
        self._settings = settings
        self._directory = directory
        self._taken = asyncio.Event()

    async def provide(self, tenant_id: UUID, placement: Placement) -> None:
        """Have the tenant's place at the head of the migrations when this returns; a pool tenant's is there already.

        May be repeated, raced and killed: each attempt finds what another has done. Raises UnknownStore and MissingUrl.
        """
        if placement.isolation is Isolation.POOL:
            self._settings.at(placement.store)
            return
        url = self._provisioner_url(placement.store)
        ready = await self._hand_over(url, tenant_id, placement.isolation)
        if not ready:
            await self._make(url, tenant_id, placement.isolation)
        _PLACES.labels(self._service, placement.isolation, "ready" if ready else "made").inc()

    async def release(self, tenant_id: UUID, placement: Placement) -> bool:
        """As :func:`release_place`, in the placement's store. Raises PlaceInUse, UnknownStore and MissingUrl."""
        url = self._provisioner_url(placement.store)
        return await release_place(url, self._service, tenant_id, placement.isolation)

    async def find(
        self, *, after: UUID | None, until: UUID | None, inspected: Collection[UUID] = ()
    ) -> list[FoundPlace]:
        """The places that there are of tenants after `after` up to and with `until`, in every store.

        Those of the `inspected` tenants come with the revision of their tables. Raises what the servers say.
        """
        return [
            place
            for store, url in self._store_urls().items()
            for place in await find_in_store(url, self._service, store, after=after, until=until, inspected=inspected)
        ]

    def serves(self, placement: Placement) -> bool:
        """Whether places can be made where the placement says."""
        try:
            urls = self._settings.at(placement.store)
        except UnknownStore:
            return False
        return placement.isolation is Isolation.POOL or urls.provisioner_database_url is not None

    @property
    def heads(self) -> Heads:
        """The revisions that a place should be at."""
        return Heads.of(self._directory or migrations_directory(self._service))

    async def refill(self) -> int:
        """Make, bring up to date and drop warm places until every store has its number; returns how many were touched.

        Where another process is at it, in that store nothing is done. Raises what the servers say.
        """
        return sum([await self._warm(url).refill() for url in self._stores()])

    async def keep_warm(self) -> NoReturn:
        """Refill after each hand-over, and every half minute, until cancelled; an error is logged and tried again."""
        while True:
            self._taken.clear()
            for url in self._stores():
                try:
                    await self._warm(url).refill()
                except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, MigrationError) as error:
                    log.warning("places_not_refilled", service=self._service, error=type(error).__name__)
            # Not wait_for(), which before Python 3.12 loses a cancellation that comes together with a hand-over.
            with suppress(TimeoutError):
                async with asyncio.timeout(REFILL_SECONDS):
                    await self._taken.wait()

    async def _hand_over(self, url: str, tenant_id: UUID, isolation: Isolation) -> bool:
        connection = await asyncpg.connect(dsn(url))
        try:
            handed = await hand_over(connection, self._warm(url).heads, self._name(tenant_id, isolation), isolation)
        except asyncpg.PostgresError as error:
            # The place is gone, somebody looks into it, or another attempt was quicker: it is undone, and made instead.
            log.warning("place_not_handed_over", service=self._service, error=type(error).__name__)
            return False
        finally:
            await connection.close()
        if handed:
            self._taken.set()
        return handed

    async def _make(self, url: str, tenant_id: UUID, isolation: Isolation) -> None:
        name = self._name(tenant_id, isolation)
        if isolation is Isolation.SCHEMA:
            await migrate(url, self._service, schema=name, directory=self._directory)
        else:
            await migrate(await create_database(url, self._service, name), self._service, directory=self._directory)

    def _name(self, tenant_id: UUID, isolation: Isolation) -> str:
        return tenant_schema(tenant_id) if isolation is Isolation.SCHEMA else tenant_database(self._service, tenant_id)

    def _warm(self, url: str) -> WarmPlaces:
        sizes = {
            Isolation.SCHEMA: self._settings.warm_schemas,
            Isolation.DATABASE: self._settings.warm_databases,
        }
        return WarmPlaces(self._service, url, sizes, directory=self._directory)

    def _provisioner_url(self, store: str) -> str:
        url = self._settings.at(store).provisioner_database_url
        if url is None:
            msg = f"{self._service.upper()}_PROVISIONER_DATABASE_URL is not set, or not in store {store}"
            raise MissingUrl(msg)
        return url

    def _stores(self) -> list[str]:
        return list(self._store_urls().values())

    def _store_urls(self) -> dict[str, str]:
        every = {self._settings.store: self._settings.at(None), **self._settings.stores}
        urls = {name: store.provisioner_database_url for name, store in every.items()}
        return {name: url for name, url in urls.items() if url is not None}
