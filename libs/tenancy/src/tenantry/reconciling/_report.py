"""A look at a page of tenants: what it asks and what a service answers. Pure, and the same on both sides."""

import hashlib
from collections.abc import Iterable
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from tenantry._tenant import Isolation, Placement, Tenant, TenantStatus, Tier

OBSERVE: Final = "tenant.observe"

_LIVES_SOMEWHERE: Final = frozenset({TenantStatus.ACTIVE, TenantStatus.SUSPENDED, TenantStatus.OFFBOARDING})


class PlaceCondition(StrEnum):
    """How the place is that a tenant's placement names."""

    READY = "ready"
    MISSING = "missing"
    BEHIND = "behind"
    """There, at an earlier revision of the migrations than the service's code."""
    UNSERVED = "unserved"
    """The service has no URLs of that store."""
    UNJUDGED = "unjudged"
    """It is being made, moved or deleted, or is nowhere yet."""


class ObservedTenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as a service knows it, or should."""

    id: UUID
    version: int
    status: TenantStatus
    read_only: bool
    moving: bool
    tier: str
    tier_version: int | None
    placement: Placement | None
    place: PlaceCondition


class UnexpectedPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A schema or a database of a tenant that should not be there: `name`, in `store`."""

    tenant_id: UUID
    isolation: Isolation
    store: str
    name: str


class RowsLeft(msgspec.Struct, frozen=True, kw_only=True):
    """A table that has rows of a tenant that was purged."""

    tenant_id: UUID
    table: str


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a request: the page of tenants after `after` up to and with `until`; None is no bound.

    `digest` is that of the page as it should be, `gone` are the tenants of the page that were purged.
    """

    after: UUID | None = None
    until: UUID | None = None
    digest: str
    gone: tuple[UUID, ...] = ()

    def covers(self, tenant_id: UUID) -> bool:
        """Whether the tenant is of this page."""
        return (self.after is None or self.after.int < tenant_id.int) and (
            self.until is None or tenant_id.int <= self.until.int
        )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an answer. Where the page `agrees` there is nothing more to say.

    `follows` is False for a service that keeps no directory of tenants, `lag_seconds` says how old that may be: None is
    unknown. `faults` are tables of the service that its data catalogue does not classify, told with the first page.
    """

    agrees: bool
    follows: bool
    lag_seconds: float | None = None
    tenants: tuple[ObservedTenant, ...] = ()
    places: tuple[UnexpectedPlace, ...] = ()
    rows: tuple[RowsLeft, ...] = ()
    faults: tuple[str, ...] = ()


def has_place(tenant: Tenant) -> bool:
    """Whether the tenant's place must be there now: not while it is being made, moved or deleted."""
    return tenant.status in _LIVES_SOMEWHERE and tenant.placement is not None and not tenant.moving


def observed(tenant: Tenant, tier: Tier | None, place: PlaceCondition) -> ObservedTenant:
    """A line of a page. Without a place to judge, `place` does not matter."""
    return ObservedTenant(
        id=tenant.id,
        version=tenant.version,
        status=tenant.status,
        read_only=tenant.read_only,
        moving=tenant.moving,
        tier=tenant.tier,
        tier_version=None if tier is None else tier.version,
        placement=tenant.placement,
        place=place if has_place(tenant) else PlaceCondition.UNJUDGED,
    )


def digest_of(tenants: Iterable[ObservedTenant]) -> str:
    """SHA-256 over a page: equal where the tenants are, in any order."""
    encode = msgspec.json.Encoder(order="deterministic").encode
    digest = hashlib.sha256()
    for tenant in sorted(tenants, key=lambda each: each.id.int):
        digest.update(encode(tenant) + b"\n")
    return digest.hexdigest()
