"""Tenants for tests."""

from datetime import UTC, datetime
from typing import Any, Final

from tenantry._ids import uuid7
from tenantry._tenant import Isolation, Placement, Tenant, TenantId, TenantStatus

_BIRTH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class TenantFactory:
    """Makes active tenants that differ in id and slug alone."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, *, isolation: Isolation = Isolation.POOL, store: str = "primary", **changes: Any) -> Tenant:
        """A tenant placed with ``isolation``; ``changes`` are fields of :class:`tenantry.Tenant`."""
        self._count += 1
        fields: dict[str, Any] = {
            "id": TenantId(uuid7()),
            "slug": f"tenant-{self._count}",
            "name": f"Tenant {self._count}",
            "status": TenantStatus.ACTIVE,
            "tier": "standard",
            "placement": Placement(store, isolation, 1),
            "version": 1,
            "created_at": _BIRTH,
            "activated_at": _BIRTH,
        }
        return Tenant(**(fields | changes))
