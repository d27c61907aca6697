"""What every service reads from the environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


BaseDomains = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""A setting of domains, separated by commas in the environment."""


class TenancySettings(BaseSettings):
    """The settings that are common to all services, with the prefix `TENANTRY_`."""

    model_config = SettingsConfigDict(env_prefix="TENANTRY_", extra="ignore", frozen=True)

    issuer: str = Field(min_length=1, description="`iss` of accepted tokens: the tenant service's base URL")
    tenant_url: str | None = Field(default=None, description="where the tenant service is; the issuer by default")
    client_id: str | None = Field(default=None, description="this service's own credential, for calling others")
    client_secret: SecretStr | None = None
    base_domains: BaseDomains = Field(default=(), description="domains whose first label is a tenant's slug")
    state_dir: Path = Field(default=Path(".tenantry/state"), description="where metered events are spooled")
    spool_max_bytes: int = Field(default=1 << 30, gt=0)
    spool_on_full: Literal["refuse", "drop"] = "refuse"

    @property
    def token_url(self) -> str:
        """Where tokens are issued."""
        return f"{(self.tenant_url or self.issuer).rstrip('/')}/oauth/token"
