"""What every service reads from the environment."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tenantry.identity import DEFAULT_SELECTORS, DEFAULT_SOURCES, Hosts, Selector, Source, StaticIssuers, TrustedIssuer


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    return {name.strip(): url.strip() for name, _, url in (part.partition("=") for part in value.split(",")) if name}


BaseDomains = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""A setting of domains, separated by commas in the environment."""
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Sources = Annotated[tuple[Source, ...], NoDecode, BeforeValidator(_split)]
Selectors = Annotated[tuple[Selector, ...], NoDecode, BeforeValidator(_split)]


class TenancySettings(BaseSettings):
    """The settings that are common to all services, with the prefix `TENANTRY_`."""

    model_config = SettingsConfigDict(env_prefix="TENANTRY_", extra="ignore", frozen=True)

    issuer: str = Field(default="", description="`iss` of accepted tokens: the tenant service's base URL")
    identity: Literal["tenantry", "external"] = Field(
        default="tenantry", description="external: only tokens of trusted issuers, none of the tenant service"
    )
    trusted_issuers: tuple[TrustedIssuer, ...] = Field(default=(), description="JSON list, see docs/identification.md")
    identify: Sources = Field(
        default=DEFAULT_SOURCES, description="credentials that are accepted, the first one counts"
    )
    select: Selectors = Field(default=DEFAULT_SELECTORS, description="where a request may name its tenant")
    tenant_url: str | None = Field(default=None, description="where the tenant service is; the issuer by default")
    client_id: str | None = Field(default=None, description="this service's own credential, for calling others")
    client_secret: SecretStr | None = None
    services: Annotated[dict[str, str], NoDecode, BeforeValidator(_pairs)] = Field(
        default_factory=dict, description="other services by audience, as in usage=http://usage:8002,billing=http://…"
    )
    key_use_seconds: float = Field(
        default=60.0, gt=0, description="how often the tenant service is told when API keys were last used"
    )
    base_domains: BaseDomains = Field(default=(), description="domains whose first label is a tenant's slug")
    hosts: Names = Field(default=(), description="the service's own host names; where set, others are unknown: 404")
    trusted_proxies: Names = Field(default=(), description="networks (CIDR) whose X-Forwarded-Host is believed")
    max_staleness_seconds: float = Field(
        default=60.0, gt=0, description="how old the local state may be before writes are refused"
    )
    stale_writes: Literal["privileged", "all", "none"] = Field(default="privileged", description="which ones are")
    recheck_seconds: float = Field(
        default=1.0, gt=0, description="how soon a stream ends after its caller has lost the right to it"
    )
    metrics_top_tenants: int = Field(
        default=10, ge=0, le=1000, description="how many tenants have metrics by name, the rest are `other`; 0: none"
    )
    region: str | None = Field(
        default=None, description="where this service runs; tenants that are pinned to another region are refused"
    )
    state_dir: Path = Field(default=Path(".tenantry/state"), description="where metered events are spooled")
    spool_max_bytes: int = Field(default=1 << 30, gt=0)
    spool_on_full: Literal["refuse", "drop"] = "refuse"
    redis_url: SecretStr | None = Field(default=None, description="a Redis or Valkey server: redis:// or rediss://")
    rate_limits: Literal["local", "redis"] = Field(
        default="local", description="whether each process enforces its part of a tenant's rates, or all of them one"
    )
    replicas: int = Field(default=1, ge=1, description="processes of this service, which divide a tenant's rates")
    max_in_flight: int = Field(default=256, ge=1, description="requests of tenants that one process works on")
    max_waiting: int = Field(default=512, ge=0, description="requests of tenants that may wait for one of those places")
    queue_seconds: float = Field(default=2.0, gt=0, description="how long they wait at most")
    entitlements: Literal["off", "kafka"] = Field(
        default="off", description="kafka: what tenants may use is followed, for `tenancy.entitlements`"
    )
    entitlements_unknown: Literal["refuse", "allow"] = Field(
        default="refuse", description="a use of what nothing is known about"
    )
    entitlements_stale: Literal["refuse", "allow"] = Field(
        default="refuse", description="a use while balances are older than max_staleness_seconds"
    )
    entitlements_hold_seconds: float = Field(
        default=10.0, gt=0, description="how far the watermark of balances must be past a use"
    )
    cache_tenant_entries: int = Field(default=10_000, ge=1, description="cached values of one tenant, at most")
    cache_tenant_bytes: int = Field(default=8 << 20, ge=1, description="their bytes, where they are in the process")
    cache_bytes: int = Field(default=128 << 20, ge=1, description="those of all tenants together")

    @model_validator(mode="after")
    def _has_an_issuer(self) -> Self:
        if self.identity == "tenantry" and not self.issuer:
            raise ValueError("TENANTRY_ISSUER is not set, and TENANTRY_IDENTITY is not external")
        StaticIssuers(self.trusted_issuers)
        Hosts(own=self.hosts, trusted_proxies=self.trusted_proxies)
        return self

    @property
    def token_url(self) -> str:
        """Where tokens are issued."""
        return f"{self.tenant_service_url}/oauth/token"

    @property
    def tenant_service_url(self) -> str:
        """Where the tenant service is."""
        return (self.tenant_url or self.issuer).rstrip("/")
