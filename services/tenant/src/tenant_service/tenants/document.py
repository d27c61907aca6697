"""The tenant as everyone else sees it: the value of `tenant.state.v1` and of the HTTP answers."""

from tenant_service.domain.lifecycle import Lifecycle
from tenant_service.domain.suspension import SuspensionReason, blocked_operations
from tenant_service.models import TenantRow
from tenantry import Placement, Routing, Tenant, TenantClock, TenantId


def lifecycle_of(row: TenantRow) -> Lifecycle:
    return Lifecycle(
        status=row.status,
        reasons=frozenset(map(SuspensionReason, row.suspension_reasons)),
        read_only=row.read_only,
        moving=row.moving,
        trial_ends_at=row.trial_ends_at,
        trial_end_announced=row.trial_end_announced,
        legal_hold=row.legal_hold,
        grace_ends_at=row.grace_ends_at,
    )


def set_lifecycle(row: TenantRow, lifecycle: Lifecycle) -> None:
    row.status = lifecycle.status
    row.suspension_reasons = sorted(lifecycle.reasons)
    row.read_only = lifecycle.read_only
    row.moving = lifecycle.moving
    row.trial_ends_at = lifecycle.trial_ends_at
    row.trial_end_announced = lifecycle.trial_end_announced
    row.legal_hold = lifecycle.legal_hold
    row.grace_ends_at = lifecycle.grace_ends_at


def document(row: TenantRow, clock: TenantClock | None) -> Tenant:
    """The row as a document; it is placed once it has a store."""
    lifecycle = lifecycle_of(row)
    placement = None
    if row.store is not None and row.placement_epoch is not None:
        placement = Placement(store=row.store, isolation=row.isolation, epoch=row.placement_epoch)
    return Tenant(
        id=TenantId(row.id),
        external_id=row.external_id,
        slug=row.slug,
        name=row.name,
        status=row.status,
        read_only=row.read_only,
        moving=row.moving,
        suspension_reasons=tuple(row.suspension_reasons),
        blocked=blocked_operations(lifecycle.status, lifecycle.reasons),
        tier=row.tier,
        region=row.region,
        placement=placement,
        clock=clock,
        domains=tuple(row.domains),
        trial_ends_at=row.trial_ends_at,
        legal_hold=row.legal_hold,
        grace_ends_at=row.grace_ends_at,
        routing=Routing(buckets=row.routing_buckets, pinned=row.routing_pinned, changed_at=row.routing_changed_at),
        version=row.version,
        created_at=row.created_at,
        activated_at=row.activated_at,
        metadata=row.details,
    )
