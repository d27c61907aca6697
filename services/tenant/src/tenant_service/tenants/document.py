"""The tenant as everyone else sees it: the value of `tenant.state.v1` and of the HTTP answers."""

from tenant_service.domain.lifecycle import Lifecycle
from tenant_service.domain.suspension import SuspensionReason, blocked_operations
from tenant_service.models import TenantRow
from tenantry import Placement, Tenant, TenantClock, TenantId


def lifecycle_of(row: TenantRow) -> Lifecycle:
    return Lifecycle(row.status, frozenset(map(SuspensionReason, row.suspension_reasons)), row.read_only)


def set_lifecycle(row: TenantRow, lifecycle: Lifecycle) -> None:
    row.status = lifecycle.status
    row.suspension_reasons = sorted(lifecycle.reasons)
    row.read_only = lifecycle.read_only


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
        suspension_reasons=tuple(row.suspension_reasons),
        blocked=blocked_operations(lifecycle.status, lifecycle.reasons),
        tier=row.tier,
        region=row.region,
        placement=placement,
        clock=clock,
        version=row.version,
        created_at=row.created_at,
        activated_at=row.activated_at,
        metadata=row.details,
    )
