"""How a service reaches its databases."""

from functools import lru_cache
from typing import Annotated, Self

from msgspec import Meta, Struct, field
from msgspec.structs import asdict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from tenantry._environment import settings_from_env
from tenantry._errors import StartupRefused
from tenantry.database._errors import UnknownStore


class _Urls(Struct, frozen=True, kw_only=True):
    """Settings whose URLs are checked when they are made, and never shown."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name.endswith("database_url") and value is not None and not _is_postgres(value):
                raise ValueError(f"{name} is not a URL such as postgresql://user:password@host:5432/database")

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in asdict(self).items() if "url" not in name and name != "stores")
        return f"{type(self).__name__}({', '.join(shown)})"


class StoreUrls(_Urls, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The URLs of one store, one a role; a process has those of the roles that it plays."""

    database_url: str | None = None
    system_database_url: str | None = None
    migrator_database_url: str | None = None
    provisioner_database_url: str | None = None


class StoreSettings(_Urls, frozen=True, kw_only=True):
    """The stores of a service, by the names that placements use."""

    # What the store of the service's own URLs is called.
    store: Annotated[str, Meta(min_length=1)] = "primary"
    # The others, as JSON: {"eu-2": {"database_url": "postgresql://…", "system_database_url": …}, …}.
    stores: dict[str, StoreUrls] = field(default_factory=dict)


class MigratorSettings(StoreSettings, frozen=True, kw_only=True):
    """What a migration of a service needs to know: the migrator's URL in every store."""

    migrator_database_url: str

    @classmethod
    def from_env(cls, service: str) -> Self:
        """The settings of ``service`` from its environment variables; raises StartupRefused."""
        return settings_from_env(cls, f"{service.upper()}_")

    def urls(self) -> dict[str, str]:
        """The migrator's URL of each store, the service's own first. Raises StartupRefused where one has none."""
        urls = {self.store: self.migrator_database_url}
        for name, store in self.stores.items():
            if store.migrator_database_url is None:
                raise StartupRefused(f"store {name} has no migrator_database_url")
            urls[name] = store.migrator_database_url
        return urls


class DatabaseSettings(StoreSettings, frozen=True, kw_only=True):
    """URLs and sizes, from the environment with the prefix of the service (``USAGE_DATABASE_URL``).

    URLs are ``postgresql://user:password@host:port/database``; each role has its own, so that a process holds only
    the credentials it needs.
    """

    # Where the service runs, common to all services: no session is opened for a tenant that is pinned elsewhere.
    region: str | None = None

    database_url: str
    system_database_url: str | None = None
    migrator_database_url: str | None = None
    provisioner_database_url: str | None = None

    # Schemas and databases that are kept ready in each store for the next tenants, by a worker that makes places.
    warm_schemas: Annotated[int, Meta(ge=0, le=1000)] = 4
    warm_databases: Annotated[int, Meta(ge=0, le=100)] = 1

    # The schema of the tables that tenants share; a product that has its tables already keeps them where they are.
    pool_schema: Annotated[str, Meta(min_length=1)] = "pool"

    pool_size: int = 10
    pool_overflow: int = 10
    system_pool_size: int = 10
    pool_timeout_seconds: float = 10.0
    # Engines of tenants with a database of their own: how many stay open, how many connections they may have together,
    # and how long one without use keeps its connections.
    tenant_engines: int = 32
    tenant_connections: int = 32
    tenant_pool_size: int = 4
    tenant_engine_idle_seconds: float = 300.0

    @classmethod
    def from_env(cls, service: str) -> Self:
        """The settings of ``service`` from its environment variables; raises StartupRefused."""
        return settings_from_env(cls, f"{service.upper()}_", {"region": "TENANTRY_REGION"})

    def at(self, store: str | None) -> StoreUrls:
        """The URLs of a store, of the service's own for None. Raises UnknownStore.

        No other store ever stands in for one that is not known: its tenants would be without their rows, or their rows
        in another region.
        """
        if store is None or store == self.store:
            return StoreUrls(
                database_url=self.database_url,
                system_database_url=self.system_database_url,
                migrator_database_url=self.migrator_database_url,
                provisioner_database_url=self.provisioner_database_url,
            )
        if store not in self.stores:
            raise UnknownStore(f"This service has no store {store}.")
        return self.stores[store]


# Every session asks for the URLs of its store.
@lru_cache(maxsize=256)
def _is_postgres(url: str) -> bool:
    try:
        return make_url(url).get_backend_name() == "postgresql"
    except (ArgumentError, ValueError):
        return False
