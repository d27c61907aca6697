"""Whether a tenant may do something now, told from its document alone.

What a state or a reason of suspension stops is worked out by the tenant service and carried in `blocked`; here it is
only looked up. A document that does not say it is read as the strictest: nothing fails open.
"""

from typing import Final

from tenantry._errors import ResidencyViolation, TenantMoving, TenantNotActive, TenantReadOnly, TenantSuspended
from tenantry._tenant import Operation, Tenant, TenantStatus

_MOVE_RETRY_SECONDS: Final = 5
# States in which a tenant is never served, and what goes on all the same: usage is evidence, the portal is how to pay.
_NOT_SERVED: Final = frozenset(TenantStatus) - {TenantStatus.ACTIVE, TenantStatus.SUSPENDED}
_BESIDE_THE_STATE: Final = frozenset({Operation.SERVICE_INGEST, Operation.PORTAL})


def admit(tenant: Tenant, operation: Operation) -> None:
    """Returns where `tenant` may do `operation` now.

    Raises `TenantSuspended` or `TenantNotActive` (403), `TenantMoving` (503), or `TenantReadOnly` (409) for a write.
    """
    if tenant.status is not TenantStatus.ACTIVE or tenant.blocked:
        _check_state(tenant, operation)
    if tenant.moving:
        raise TenantMoving("The tenant is being moved to another place.", retry_after=_MOVE_RETRY_SECONDS)
    if tenant.read_only and operation is Operation.WRITE:
        raise TenantReadOnly("The tenant is read-only.")


def check_residency(tenant: Tenant, region: str | None) -> None:
    """Returns where a service in `region` may work for `tenant`; None, of either, is anywhere.

    Raises `ResidencyViolation` (403) for a tenant that is pinned to another region.
    """
    if region is not None and tenant.region is not None and tenant.region != region:
        raise ResidencyViolation(f"The tenant's data stays in region {tenant.region}; this service is in {region}.")


def _check_state(tenant: Tenant, operation: Operation) -> None:
    undocumented = tenant.status is TenantStatus.SUSPENDED and not tenant.blocked
    if tenant.blocks(operation) or (
        (undocumented or tenant.status in _NOT_SERVED) and operation not in _BESIDE_THE_STATE
    ):
        if tenant.status in _NOT_SERVED:
            raise TenantNotActive(f"The tenant is {tenant.status.replace('_', ' ')}.")
        reasons = ", ".join(tenant.suspension_reasons) or "no reason is given"
        raise TenantSuspended(f"The tenant is suspended: {reasons}.")
