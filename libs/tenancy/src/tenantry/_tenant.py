"""The tenant as every service sees it: the value of a record of `tenant.state.v1`."""

from datetime import datetime
from enum import StrEnum
from typing import Any, NewType
from uuid import UUID

import msgspec

from tenantry._clock import Clock

TenantId = NewType("TenantId", UUID)


class TenantStatus(StrEnum):
    REQUESTED = "requested"
    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    OFFBOARDING = "offboarding"
    PURGING = "purging"
    PURGED = "purged"
    PROVISIONING_FAILED = "provisioning_failed"
    CANCELLED = "cancelled"


class Isolation(StrEnum):
    POOL = "pool"
    SCHEMA = "schema"
    DATABASE = "database"


class Operation(StrEnum):
    """What a tenant's status can block."""

    LOGIN = "login"
    READ = "read"
    WRITE = "write"
    JOBS = "jobs"
    INGEST = "ingest"
    """Usage sent with a credential of the tenant."""
    SERVICE_INGEST = "service_ingest"
    """Usage sent by a service on the tenant's behalf."""
    PORTAL = "portal"


class Placement(msgspec.Struct, frozen=True):
    """Where a tenant's rows live. `epoch` grows with every move and fences writers that still know the old place."""

    store: str
    isolation: Isolation
    epoch: int = 1


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """A store's document, as published on `platform.state.v1` under the key `store/<name>`.

    It says where a store is and not how it is reached: credentials never travel by events.
    """

    name: str
    region: str
    version: int


class TenantClock(msgspec.Struct, frozen=True):
    """A test clock that the tenant is bound to."""

    id: UUID
    now: datetime


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """Over how many keys of `usage.events.v1` a tenant's events are spread, so that several workers count them."""

    buckets: int = 1
    pinned: bool = False
    """Chosen by an operator; the usage service, which follows what a tenant sends, leaves it alone."""
    changed_at: datetime | None = None


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's document, as published by the tenant service; consumers keep the one with the greatest `version`."""

    id: TenantId
    external_id: str | None = None
    slug: str
    name: str
    status: TenantStatus
    read_only: bool = False
    moving: bool = False
    suspension_reasons: tuple[str, ...] = ()
    blocked: tuple[Operation, ...] = ()
    """What the status and the suspension reasons stop; worked out by the tenant service, only looked up elsewhere."""
    tier: str
    region: str | None = None
    placement: Placement | None = None
    clock: TenantClock | None = None
    domains: tuple[str, ...] = ()
    """Host names that the tenant has proven to be its own, lower case, without a trailing dot."""
    trial_ends_at: datetime | None = None
    legal_hold: bool = False
    """Blocks the purge and nothing else."""
    grace_ends_at: datetime | None = None
    """While the tenant is offboarding: when its data may be purged."""
    routing: Routing = Routing()
    version: int
    created_at: datetime
    activated_at: datetime | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)

    def blocks(self, operation: Operation) -> bool:
        return operation in self.blocked

    def now(self, clock: Clock) -> datetime:
        """The tenant's present: its test clock where it is bound to one, `clock` elsewhere."""
        return self.clock.now if self.clock is not None else clock.now()


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """A tier's document, as published on `platform.state.v1` under the key `tier/<name>`."""

    name: str
    version: int
    max_event_age_seconds: int | None = 35 * 86_400
    """How old an event may be on receipt; None is no limit."""
    limits: dict[str, Any] = msgspec.field(default_factory=dict)
    entitlements: dict[str, Any] = msgspec.field(default_factory=dict)
    isolation: Isolation = Isolation.POOL
    placement: dict[str, Any] = msgspec.field(default_factory=dict)
    """Which stores its tenants may be placed in; read by the tenant service."""
    constraints: dict[str, Any] = msgspec.field(default_factory=dict)
    """Values that hold whatever a tenant configures: namespace -> JSON merge patch, applied after all layers."""
