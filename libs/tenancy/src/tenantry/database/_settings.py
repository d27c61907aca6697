"""How a service reaches its databases."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from tenantry._errors import StartupRefused
from tenantry.database._errors import UnknownStore


def _check_url(url: str) -> str:
    try:
        backend = make_url(url).get_backend_name()
    except (ArgumentError, ValueError):
        backend = None
    if backend != "postgresql":
        raise ValueError("not a URL such as postgresql://user:password@host:5432/database")
    return url


PostgresUrl = Annotated[str, AfterValidator(_check_url)]


class StoreUrls(BaseModel):
    """The URLs of one store, one a role; a process has those of the roles that it plays."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    database_url: PostgresUrl | None = Field(default=None, repr=False)
    system_database_url: PostgresUrl | None = Field(default=None, repr=False)
    migrator_database_url: PostgresUrl | None = Field(default=None, repr=False)
    provisioner_database_url: PostgresUrl | None = Field(default=None, repr=False)


class StoreSettings(BaseSettings):
    """The stores of a service, by the names that placements use."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True, populate_by_name=True)

    # What the store of the service's own URLs is called.
    store: str = Field(default="primary", min_length=1)
    # The others, as JSON: {"eu-2": {"database_url": "postgresql://…", "system_database_url": …}, …}.
    stores: dict[str, StoreUrls] = Field(default_factory=dict, repr=False)


class MigratorSettings(StoreSettings):
    """What a migration of a service needs to know: the migrator's URL in every store."""

    migrator_database_url: PostgresUrl = Field(repr=False)

    @classmethod
    def from_env(cls, service: str) -> Self:
        """The settings of ``service`` from its environment variables; raises pydantic's ValidationError."""
        return cls(_env_prefix=f"{service.upper()}_")

    def urls(self) -> dict[str, str]:
        """The migrator's URL of each store, the service's own first. Raises StartupRefused where one has none."""
        urls = {self.store: self.migrator_database_url}
        for name, store in self.stores.items():
            if store.migrator_database_url is None:
                raise StartupRefused(f"store {name} has no migrator_database_url")
            urls[name] = store.migrator_database_url
        return urls


class DatabaseSettings(StoreSettings):
    """URLs and sizes, from the environment with the prefix of the service (``USAGE_DATABASE_URL``).

    URLs are ``postgresql://user:password@host:port/database``; each role has its own, so that a process holds only
    the credentials it needs.
    """

    # Where the service runs, common to all services: no session is opened for a tenant that is pinned elsewhere.
    region: str | None = Field(default=None, validation_alias="TENANTRY_REGION")

    database_url: PostgresUrl = Field(repr=False)
    system_database_url: PostgresUrl | None = Field(default=None, repr=False)
    migrator_database_url: PostgresUrl | None = Field(default=None, repr=False)
    provisioner_database_url: PostgresUrl | None = Field(default=None, repr=False)

    # Schemas and databases that are kept ready in each store for the next tenants, by a worker that makes places.
    warm_schemas: int = Field(default=4, ge=0, le=1000)
    warm_databases: int = Field(default=1, ge=0, le=100)

    # The schema of the tables that tenants share; a product that has its tables already keeps them where they are.
    pool_schema: str = Field(default="pool", min_length=1)

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
        """The settings of ``service`` from its environment variables; raises pydantic's ValidationError."""
        return cls(_env_prefix=f"{service.upper()}_")

    def at(self, store: str | None) -> StoreUrls:
        """The URLs of a store, of the service's own for None. Raises UnknownStore.

        No other store ever stands in for one that is not known: its tenants would be without their rows, or their rows
        in another region.
        """
        if store is None or store == self.store:
            return StoreUrls.model_construct(
                database_url=self.database_url,
                system_database_url=self.system_database_url,
                migrator_database_url=self.migrator_database_url,
                provisioner_database_url=self.provisioner_database_url,
            )
        if store not in self.stores:
            raise UnknownStore(f"This service has no store {store}.")
        return self.stores[store]
