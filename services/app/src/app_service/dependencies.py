"""What the routes ask for by annotation, beside the tenant and its session."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from app_service.domain import StorageChange
from tenantry import Tenancy, TenantSession
from tenantry.http import idempotent, require_scope
from tenantry.identity import Scope

STORAGE_EVENT = "storage.bytes"


async def _tenancy(connection: HTTPConnection) -> Tenancy:
    tenancy: Tenancy = connection.app.state.tenancy
    return tenancy


async def _max_file_bytes(connection: HTTPConnection) -> int:
    limit: int = connection.app.state.max_file_bytes
    return limit


async def _export_days(connection: HTTPConnection) -> int:
    days: int = connection.app.state.export_days
    return days


App = Annotated[Tenancy, Depends(_tenancy)]
MaxFileBytes = Annotated[int, Depends(_max_file_bytes)]
ExportDays = Annotated[int, Depends(_export_days)]

Reader = Depends(require_scope(Scope.TENANT_READ, Scope.SERVICE, Scope.PLATFORM))
Writer = Depends(require_scope(Scope.TENANT_WRITE, Scope.SERVICE, Scope.PLATFORM))
Idempotent = Depends(idempotent(TenantSession))


async def announce(tenancy: Tenancy, change: StorageChange | None) -> None:
    """Meter what the current tenant's files take now; to be called after the commit and before the response."""
    if change is not None:
        await tenancy.meter(STORAGE_EVENT, data=change.as_event(), time=change.at)
