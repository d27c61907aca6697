"""Erasing one person inside a tenant, for operators and for administrators of the tenant."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends

from tenantry import InvalidRequest, PermissionDenied, Tenant, TenantNotFound
from tenantry.http import (
    CurrentPrincipal,
    Cursor,
    IdempotentRoute,
    Limit,
    Page,
    decode_cursor,
    encode_cursor,
    require_scope,
)
from tenantry.identity import PrincipalKind, Scope
from usage_service.dependencies import CurrentTenancy, Idempotent, SelectedTenant, SystemTransaction
from usage_service.erasure.repository import find_erasures
from usage_service.erasure.schemas import ErasureIn, ErasureOut
from usage_service.erasure.service import ask_erasure, get_erasure

_LAST: Final = UUID(int=2**128 - 1)
_ERASURES: Final = "erasures"


async def _no_support(caller: CurrentPrincipal) -> None:
    if caller.kind is PrincipalKind.SUPPORT:
        raise PermissionDenied("Support access erases nobody.")


router = APIRouter(
    prefix="/v1/erasures",
    tags=["erasure"],
    route_class=IdempotentRoute,
    dependencies=[Depends(require_scope(Scope.PLATFORM, Scope.TENANT_ADMIN)), Depends(_no_support)],
)


async def _asked_tenant(body: ErasureIn, tenancy: CurrentTenancy, selected: SelectedTenant) -> Tenant:
    """The tenant that the body names, else that of the request. To a caller that has a tenant no other one exists."""
    if body.tenant_id is None:
        if selected is None:
            missing = "names the tenant whose person is to be erased"
            raise InvalidRequest(f"tenant_id {missing}.", errors=[{"loc": ["body", "tenant_id"], "msg": missing}])
        return selected
    tenant = tenancy.directory.resolve(body.tenant_id)
    foreign = tenant is None or (selected is not None and selected.id != tenant.id)
    if tenant is None or foreign or tenancy.directory.is_purged(tenant.id):
        raise TenantNotFound("There is no such tenant.")
    return tenant


@router.post("", status_code=202, dependencies=[Idempotent])
async def post(
    body: ErasureIn,
    session: SystemTransaction,
    tenant: Annotated[Tenant, Depends(_asked_tenant)],
    caller: CurrentPrincipal,
) -> ErasureOut:
    """Erase a person's values from raw events, the archive, rollups, dead letters and corrections.

    What was received before is erased; what comes later is new data, and another erasure. Sums, counts and numbers of
    different values stay: a pseudonym, from which nothing leads back, stands where a value stood.
    """
    return ErasureOut.of(
        await ask_erasure(
            session,
            tenant.id,
            values=body.values,
            paths=body.paths,
            attributes=body.attributes,
            accept_differing_figures=body.accept_differing_figures,
            by=caller.subject,
        )
    )


@router.get("")
async def list_erasures(
    session: SystemTransaction, tenant: SelectedTenant, limit: Limit = 50, cursor: Cursor = None
) -> Page[ErasureOut]:
    """Erasures with their reports, the newest first; of all tenants for an operator that selects none."""
    before = decode_cursor(cursor, UUID, of=_ERASURES) if cursor else _LAST
    rows = await find_erasures(session, None if tenant is None else tenant.id, before=before, limit=limit + 1)
    return Page(
        items=[ErasureOut.of(row) for row in rows[:limit]],
        next_cursor=encode_cursor(rows[limit - 1].id, of=_ERASURES) if len(rows) > limit else None,
    )


@router.get("/{erasure_id}")
async def get(erasure_id: UUID, session: SystemTransaction, tenant: SelectedTenant) -> ErasureOut:
    """How far an erasure is, what was found where, and what is kept."""
    return ErasureOut.of(await get_erasure(session, None if tenant is None else tenant.id, erasure_id))
