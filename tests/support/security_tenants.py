"""Two tenants whose names differ in one letter."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tenantry import Tenant, TenantId, TenantStatus

A = UUID("0198a000-0000-7000-8000-00000000000a")
B = UUID("0198a000-0000-7000-8000-00000000000b")


def make_tenant(tenant_id: UUID, **changes: Any) -> Tenant:
    """An active tenant: A is `org-a` and `tenant-a`, B is `org-b` and `tenant-b`."""
    letter = str(tenant_id)[-1]
    values: dict[str, Any] = {
        "id": TenantId(tenant_id),
        "external_id": f"org-{letter}",
        "slug": f"tenant-{letter}",
        "name": "Tenant",
        "status": TenantStatus.ACTIVE,
        "tier": "standard",
        "version": 1,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Tenant(**(values | changes))
