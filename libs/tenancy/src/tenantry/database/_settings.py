"""How a service reaches its databases."""

from typing import Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DatabaseSettings(BaseSettings):
    """URLs and sizes, from the environment with the prefix of the service (``USAGE_DATABASE_URL``).

    URLs are ``postgresql://user:password@host:port/database``; each role has its own, so that a process holds only
    the credentials it needs.
    """

    model_config = SettingsConfigDict(extra="ignore")

    database_url: str = Field(repr=False)
    system_database_url: str | None = Field(default=None, repr=False)
    migrator_database_url: str | None = Field(default=None, repr=False)
    provisioner_database_url: str | None = Field(default=None, repr=False)
    # Other stores than the one of database_url, by the name that placements use.
    stores: dict[str, str] = Field(default_factory=dict, repr=False)

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
