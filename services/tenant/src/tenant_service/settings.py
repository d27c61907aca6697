"""What the environment says. Nothing here has a secret as its default."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from tenacity.wait import wait_exponential_jitter

from tenant_service.domain.domain_claims import DomainPolicy
from tenant_service.domain.identifiers import CODE_PATTERN
from tenant_service.domain.saga import RetryPolicy, RunKind
from tenant_service.reconciling.policy import ReconcilingPolicy
from tenant_service.runs.steps import SagaSettings
from tenantry import BaseDomains

SERVICE = "tenant"

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
    # Base64 of 32 bytes, here or in a file; the previous one is needed until `POST /v1/master-key/rewrap` has run.
    master_key: str = Field(default="", repr=False)
    master_key_file: Path | None = None
    previous_master_key: str = Field(default="", repr=False)
    previous_master_key_file: Path | None = None
    bootstrap_file: Path | None = None
    # Where a browser may be sent after it has signed in, besides this service itself: origins, not URLs.
    sign_in_origins: list[str] = Field(default_factory=list)
    test_clocks_enabled: bool = False
    # Common to all services: where exports go; without it there are none.
    export_url: str | None = Field(default=None, validation_alias="TENANTRY_EXPORT_URL")
    # For how long an export can be read before its files are deleted.
    export_days: int = Field(default=30, ge=1, le=3650)

    # External: a trusted identity provider knows the people. Members and invitations are then not kept here; API keys,
    # domains, support access and the clients of services are.
    identity: Literal["builtin", "external"] = "builtin"
    invitation_days: int = Field(default=7, ge=1, le=90)
    # For how long a slug or a domain that was given up is for nobody else.
    quarantine_days: int = Field(default=90, ge=0, le=3650)
    # How often the proof of a domain is looked for again, and how long it may be missing before the domain is lost.
    domain_check_hours: int = Field(default=24, ge=1, le=24 * 30)
    domain_grace_days: int = Field(default=7, ge=0, le=90)
    # Addresses of name servers that domains are looked up at, with a port if need be; empty: those of the machine.
    dns_servers: list[str] = Field(default_factory=list)

    # The store of a deployment that has none yet, and where it is: made when the service starts.
    default_store: str = Field(default="primary", pattern=CODE_PATTERN)
    default_region: str = Field(default="default", pattern=CODE_PATTERN)
    required_services: list[str] = Field(default_factory=list)
    # Asked with the required ones and not waited for: a run lists them as degraded until they have answered.
    optional_services: list[str] = Field(default_factory=list)
    clock_services: list[str] = Field(default_factory=list)
    # Asked, after a suspension and its end, to say that they work by the new state.
    state_services: list[str] = Field(default_factory=list)
    # Those that export and purge a tenant's data, besides this one.
    offboarding_services: list[str] = Field(default_factory=list)
    # How long before its end a trial is said to be ending, in `tenant.trial_ending.v1`.
    trial_ending_days: int = Field(default=3, ge=0, le=365)
    # A turn takes up to 50 steps at once, so two are enough to have one working while the other commits.
    saga_concurrency: int = Field(default=1, ge=1, le=64)
    saga_attempts: int = Field(default=8, ge=1)
    # Kafka keeps a request for a service that is away, so asking again soon would only make work.
    saga_answer_seconds: float = Field(default=120.0, gt=0)
    saga_longest_pause_seconds: float = Field(default=300.0, gt=0)

    # Clients that may spread the events of tenants: the usage service, by the name of its credential.
    routing_clients: list[str] = Field(default_factory=lambda: ["usage-service"])

    # How often what the services have is compared with what is said here; 0: only when somebody asks for it.
    reconcile_minutes: float = Field(default=10.0, ge=0)
    # Whether those rounds repair what they find, or only say it.
    reconcile_repair: bool = True
    # Those that are asked; left out: this one and all that are named above.
    reconcile_services: list[str] | None = None
    reconcile_tolerance_seconds: float = Field(default=5.0, ge=0, le=60)
    reconcile_answer_seconds: float = Field(default=60.0, gt=0)
    # More places than this that are missing from one service are not made again: somebody has to see why.
    reconcile_missing_places: int = Field(default=10, ge=0)

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

    @property
    def invite_for(self) -> timedelta | None:
        """For how long the owner of a new tenant is invited; None where the company's own provider knows the people."""
        return timedelta(days=self.invitation_days) if self.identity == "builtin" else None

    @property
    def exports_kept(self) -> timedelta:
        """For how long the files of an export are kept once it is done."""
        return timedelta(days=self.export_days)

    def domain_policy(self) -> DomainPolicy:
        """How domains are kept."""
        return DomainPolicy(
            check_every=timedelta(hours=self.domain_check_hours),
            grace=timedelta(days=self.domain_grace_days),
            quarantine=timedelta(days=self.quarantine_days),
        )

    def reconciling(self) -> ReconcilingPolicy:
        """How the reconciler goes about it."""
        named = {SERVICE, *self.required_services, *self.optional_services, *self.offboarding_services}
        services = named if self.reconcile_services is None else set(self.reconcile_services)
        return ReconcilingPolicy(
            services=tuple(sorted(services)),
            provisioning=tuple(sorted(set(self.required_services))),
            every=timedelta(minutes=self.reconcile_minutes) or None,
            repair=self.reconcile_repair,
            tolerance=timedelta(seconds=self.reconcile_tolerance_seconds),
            answer_within=timedelta(seconds=self.reconcile_answer_seconds),
            missing_places=self.reconcile_missing_places,
        )

    def saga(self) -> SagaSettings:
        """What the steps of sagas need to know."""
        return SagaSettings(
            services={
                RunKind.PROVISION: tuple(sorted(set(self.required_services))),
                RunKind.CLOCK_ADVANCE: tuple(sorted(set(self.clock_services))),
                RunKind.CONFIRM_STATE: tuple(sorted(set(self.state_services))),
            },
            optional_services={
                RunKind.PROVISION: tuple(sorted(set(self.optional_services) - set(self.required_services))),
            },
            offboarding_services=tuple(sorted({SERVICE, *self.offboarding_services})),
            quarantine=timedelta(days=self.quarantine_days),
            exports_kept=self.exports_kept,
            retry=RetryPolicy(
                wait=wait_exponential_jitter(multiplier=0.5, max=self.saga_longest_pause_seconds, jitter=0.5),
                attempts=self.saga_attempts,
                answer_within=timedelta(seconds=self.saga_answer_seconds),
            ),
        )
