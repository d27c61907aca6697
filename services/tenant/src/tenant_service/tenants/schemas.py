"""What comes in over HTTP and what goes out."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tenant_service.domain.host_names import normalise_email
from tenant_service.domain.identifiers import CODE_PATTERN, check_external_id, check_slug
from tenant_service.domain.suspension import REASONS_BY_HAND, SuspensionReason
from tenant_service.instants import Instant
from tenant_service.runs.schemas import RunOut
from tenantry import Isolation, Tenant, TenantryError, TenantStatus
from tenantry.http import etag

Slug = Annotated[str, AfterValidator(check_slug)]
ExternalId = Annotated[str, AfterValidator(check_external_id)]
EmailAddress = Annotated[str, AfterValidator(normalise_email)]


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("the character NUL cannot be stored")
    return text


Text = Annotated[str, AfterValidator(_no_nul)]
# The constraints stand at `str` itself: behind a validator they would be checked before the spaces are taken off.
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(_no_nul)]
Code = Annotated[str, StringConstraints(pattern=CODE_PATTERN)]
Note = Annotated[Text, StringConstraints(max_length=2000)]

METADATA_MAX_KEYS = 50
BATCH_MAX_TENANTS = 500


def _check_metadata(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) > METADATA_MAX_KEYS:
        raise ValueError(f"metadata has at most {METADATA_MAX_KEYS} keys")
    for key, text in value.items():
        _no_nul(key)
        if isinstance(text, str):
            _no_nul(text)
    return value


# Flat on purpose: metadata is for a company's own labels, and configuration has its own place.
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=500)] | int | bool | None,
    ],
    AfterValidator(_check_metadata),
]


class Input(BaseModel):
    """A field that is not known, or that the server owns, is refused."""

    model_config = ConfigDict(extra="forbid")


class TenantWanted(Input):
    slug: Slug
    name: Name
    tier: Code
    admin_email: EmailAddress
    external_id: ExternalId | None = None
    region: Code | None = None
    isolation: Isolation | None = Field(None, description="Left out: the isolation of the tier.")
    plan: Code | None = Field(None, description="Handed on to billing in `tenant.created.v1`.")
    test_clock: UUID | None = None
    metadata: Metadata = Field(default_factory=dict)


class TenantCreate(TenantWanted):
    config: dict[Code, dict[str, Any]] = Field(
        default_factory=dict, max_length=50, description="What the tenant says in each namespace."
    )


class TenantBatch(Input):
    """Configuration is not among it: what many have in common belongs to their tier."""

    tenants: list[TenantWanted] = Field(min_length=1, max_length=BATCH_MAX_TENANTS)


class TenantUpdate(Input):
    """Only the fields that are sent change; `metadata` is replaced as a whole."""

    name: Name | None = None
    tier: Code | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _nothing_is_cleared(self) -> "TenantUpdate":
        cleared = sorted(field for field in self.model_fields_set if getattr(self, field) is None)
        if cleared:
            raise ValueError(f"cannot be null: {', '.join(cleared)}")
        return self


def _by_hand(reason: SuspensionReason) -> SuspensionReason:
    if reason not in REASONS_BY_HAND:
        raise ValueError(f"{reason} is set and lifted by the trial itself")
    return reason


class Suspension(Input):
    reason: Annotated[SuspensionReason, AfterValidator(_by_hand)]
    note: Note = ""


class ReadOnly(Input):
    on: bool
    reason: Note = ""


class LegalHold(Input):
    on: bool
    reason: Note = ""


class Trial(Input):
    ends_at: Instant | None = Field(description="Null: the tenant stays, and the trial is over.")
    note: Note = ""


class PlacementOut(BaseModel):
    store: str
    isolation: Isolation
    epoch: int


class RoutingOut(BaseModel):
    buckets: int
    pinned: bool
    changed_at: datetime | None


class ClockOut(BaseModel):
    id: UUID
    now: datetime


class TenantOut(BaseModel):
    id: UUID
    external_id: str | None
    slug: str
    name: str
    status: TenantStatus
    read_only: bool
    moving: bool
    suspension_reasons: list[str]
    trial_ends_at: datetime | None
    legal_hold: bool
    grace_ends_at: datetime | None
    routing: RoutingOut
    tier: str
    region: str | None
    placement: PlacementOut | None
    test_clock: ClockOut | None
    version: int
    created_at: datetime
    activated_at: datetime | None
    metadata: dict[str, Any]

    @classmethod
    def of(cls, tenant: Tenant) -> "TenantOut":
        placement, clock = tenant.placement, tenant.clock
        return cls(
            id=tenant.id,
            external_id=tenant.external_id,
            slug=tenant.slug,
            name=tenant.name,
            status=tenant.status,
            read_only=tenant.read_only,
            moving=tenant.moving,
            suspension_reasons=list(tenant.suspension_reasons),
            trial_ends_at=tenant.trial_ends_at,
            legal_hold=tenant.legal_hold,
            grace_ends_at=tenant.grace_ends_at,
            routing=RoutingOut(
                buckets=tenant.routing.buckets, pinned=tenant.routing.pinned, changed_at=tenant.routing.changed_at
            ),
            tier=tenant.tier,
            region=tenant.region,
            placement=placement
            and PlacementOut(store=placement.store, isolation=placement.isolation, epoch=placement.epoch),
            test_clock=clock and ClockOut(id=clock.id, now=clock.now),
            version=tenant.version,
            created_at=tenant.created_at,
            activated_at=tenant.activated_at,
            metadata=tenant.metadata,
        )


def shown(tenant: Tenant, response: Response) -> TenantOut:
    """A tenant as an answer, with its version as the ETag."""
    response.headers["ETag"] = etag(tenant.version)
    return TenantOut.of(tenant)


class RefusalOut(BaseModel):
    """Why a tenant was not made, as the problem says it that would have been the answer for it alone."""

    type: str
    title: str
    status: int
    detail: str

    @classmethod
    def of(cls, error: TenantryError) -> "RefusalOut":
        return cls(type=error.type, title=error.title, status=error.status, detail=error.detail)


class BatchItemOut(BaseModel):
    """One of the two."""

    tenant: TenantOut | None = None
    error: RefusalOut | None = None


class TenantBatchOut(BaseModel):
    """`items` are in the order of the request."""

    created: int
    refused: int
    items: list[BatchItemOut]

    @classmethod
    def of(cls, outcomes: Sequence[Tenant | TenantryError]) -> "TenantBatchOut":
        items = [
            BatchItemOut(tenant=TenantOut.of(outcome))
            if isinstance(outcome, Tenant)
            else BatchItemOut(error=RefusalOut.of(outcome))
            for outcome in outcomes
        ]
        created = sum(item.tenant is not None for item in items)
        return cls(created=created, refused=len(items) - created, items=items)


class TenantDetailOut(TenantOut):
    """`runs` are those that are not over, or that a service has not answered well; empty for the tenant itself."""

    runs: list[RunOut]
    degraded_services: list[str]

    @classmethod
    def with_runs(cls, tenant: Tenant, runs: list[RunOut]) -> "TenantDetailOut":
        degraded = {service for run in runs for service in run.degraded}
        return cls(**dict(TenantOut.of(tenant)), runs=runs, degraded_services=sorted(degraded))
