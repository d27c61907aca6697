"""What the routes ask for by annotation, beside the tenant and its session."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends
from fastapi.params import Depends as Demand
from starlette.requests import HTTPConnection

from app_service.domain import StorageChange
from tenantry import Tenancy, TenantSession
from tenantry.entitlements import requires
from tenantry.http import idempotent, require_scope
from tenantry.identity import Scope

STORAGE_EVENT = "storage.bytes"
DOCUMENT_EVENT = "document.created"


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


def entitled(feature: str | None = None, *, quota: str | None = None) -> Demand:
    """The tenant has the feature (else 403), and one of the quota is left and is taken (else 402).

    Where `TENANTRY_ENTITLEMENTS` is off there is nobody to give any, and every tenant has everything.
    """
    check = requires(feature, quota=quota)

    async def ask(connection: HTTPConnection, app: App) -> None:
        if app.settings.entitlements != "off":
            await check(connection)

    demand: Demand = Depends(ask)
    return demand


async def _after_commit(app: App) -> AsyncIterator[list[dict[str, Any]]]:
    documents: list[dict[str, Any]] = []
    yield documents
    for document in documents:
        await app.meter(DOCUMENT_EVENT, data=document)


# Asked for before the session, it ends after the session's commit, and not at all where that fails.
AfterCommit = Depends(_after_commit, scope="function")
CreatedDocuments = Annotated[list[dict[str, Any]], AfterCommit]
"""What is added to it is metered once it is committed, before the response. A repetition that is answered with the
first answer adds nothing.
"""


async def announce(tenancy: Tenancy, change: StorageChange | None) -> None:
    """Meter what the current tenant's files take now; to be called after the commit and before the response."""
    if change is not None:
        await tenancy.meter(STORAGE_EVENT, data=change.as_event(), time=change.at)
