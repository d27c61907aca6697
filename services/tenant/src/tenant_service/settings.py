"""What the environment says. Nothing here has a secret as its default."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from tenacity.wait import wait_exponential_jitter

from tenant_service.domain.saga import RetryPolicy, RunKind
from tenant_service.runs.steps import SagaSettings
from tenantry import BaseDomains

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?|https?://\[[0-9a-fA-F:]+\](?::[0-9]+)?")


class TenantSettings(BaseSettings):
    """The settings of the tenant service; variables have the prefix `TENANT_`."""

    model_config = SettingsConfigDict(env_prefix="TENANT_", extra="ignore", populate_by_name=True)

    host: str = "127.0.0.1"
    port: int = 8001
    # The issuer of tokens and the root of the URLs that people are sent to.
    base_url: str = "http://127.0.0.1:8001"
    # Common to all services: the domains below which the first label is a tenant's slug.
    base_domains: BaseDomains = Field(default=(), validation_alias="TENANTRY_BASE_DOMAINS")
    master_key: str = Field(default="", repr=False)
    bootstrap_file: Path | None = None
    # Where a browser may be sent after it has signed in, besides this service itself: origins, not URLs.
    sign_in_origins: list[str] = Field(default_factory=list)
    test_clocks_enabled: bool = False

    # The store that new tenants are placed in.
    default_store: str = "primary"
    required_services: list[str] = Field(default_factory=list)
    # Asked with the required ones and not waited for: a run lists them as degraded until they have answered.
    optional_services: list[str] = Field(default_factory=list)
    clock_services: list[str] = Field(default_factory=list)
    # Asked, after a suspension and its end, to say that they work by the new state.
    state_services: list[str] = Field(default_factory=list)
    # How long before its end a trial is said to be ending, in `tenant.trial_ending.v1`.
    trial_ending_days: int = Field(default=3, ge=0, le=365)
    # A turn takes up to 200 steps at once, so two are enough to have one working while the other commits.
    saga_concurrency: int = Field(default=2, ge=1, le=64)
    saga_attempts: int = Field(default=8, ge=1)
    # Kafka keeps a request for a service that is away, so asking again soon would only make work.
    saga_answer_seconds: float = Field(default=120.0, gt=0)
    saga_longest_pause_seconds: float = Field(default=300.0, gt=0)

    @field_validator("base_url")
    @classmethod
    def _no_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @field_validator("sign_in_origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        """They stand in a header of the sign-in page as they are."""
        wrong = [origin for origin in origins if _ORIGIN.fullmatch(origin) is None]
        if wrong:
            raise ValueError(f"not an origin such as https://billing.example.com: {', '.join(wrong)}")
        return origins

    @classmethod
    def from_env(cls) -> Self:
        """Raises pydantic's ValidationError."""
        return cls()

    def saga(self) -> SagaSettings:
        """What the steps of sagas need to know."""
        return SagaSettings(
            store=self.default_store,
            services={
                RunKind.PROVISION: tuple(sorted(set(self.required_services))),
                RunKind.CLOCK_ADVANCE: tuple(sorted(set(self.clock_services))),
                RunKind.CONFIRM_STATE: tuple(sorted(set(self.state_services))),
            },
            optional_services={
                RunKind.PROVISION: tuple(sorted(set(self.optional_services) - set(self.required_services))),
            },
            retry=RetryPolicy(
                wait=wait_exponential_jitter(multiplier=0.5, max=self.saga_longest_pause_seconds, jitter=0.5),
                attempts=self.saga_attempts,
                answer_within=timedelta(seconds=self.saga_answer_seconds),
            ),
        )
