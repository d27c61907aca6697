"""Routes of support access."""

from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter

from tenant_service.dependencies import (
    AdministeredTenant,
    CurrentActor,
    Idempotent,
    Now,
    Platform,
    TenantReference,
    Transaction,
    check_may_administer,
)
from tenant_service.support import service
from tenant_service.support.schemas import SupportCreate, SupportGrantOut
from tenant_service.tenants.repository import find_tenant
from tenantry import CurrentPrincipal
from tenantry.http import Cursor, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor

router = APIRouter(
    prefix="/v1/tenants/{tenant_id}/support-access", tags=["support access"], route_class=IdempotentRoute
)

_LIST = "support access"


@router.post("", status_code=201, dependencies=[Platform, Idempotent])
async def grant_access(
    tenant: AdministeredTenant, body: SupportCreate, session: Transaction, actor: CurrentActor, now: Now
) -> SupportGrantOut:
    """Let the calling operator into the tenant, for half an hour at most.

    `POST /oauth/token` gives tokens for the grant. The tenant's administrators see it, and may end it.
    """
    row = await service.grant_access(
        session,
        tenant,
        reason=body.reason,
        lifetime=timedelta(minutes=body.minutes),
        write=body.access == "write",
        actor=actor,
        now=now,
    )
    return SupportGrantOut.of(row)


@router.get("")
async def list_grants(
    tenant: AdministeredTenant, session: Transaction, limit: Limit = 50, cursor: Cursor = None
) -> Page[SupportGrantOut]:
    """Who was let in, why, and for how long; the newest first."""
    before = None if cursor is None else decode_cursor(cursor, UUID, of=_LIST)
    rows = await service.list_grants(session, tenant.id, before=before, limit=limit + 1)
    items = [SupportGrantOut.of(row) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id, of=_LIST) if len(rows) > limit else None)


@router.get("/{grant_id}")
async def get_grant(tenant: AdministeredTenant, grant_id: UUID, session: Transaction) -> SupportGrantOut:
    """One grant."""
    return SupportGrantOut.of(await service.find_grant(session, tenant.id, grant_id))


@router.delete("/{grant_id}")
async def end_access(
    tenant_id: TenantReference,
    grant_id: UUID,
    session: Transaction,
    principal: CurrentPrincipal,
    actor: CurrentActor,
    now: Now,
) -> SupportGrantOut:
    """End it early: the operator, the tenant's administrators, or whoever holds a token of the grant itself."""
    tenant, _ = await find_tenant(session, tenant_id)
    if principal.tenant_id != tenant.id or principal.credential_id != str(grant_id):
        check_may_administer(principal, tenant.id)
    return SupportGrantOut.of(await service.end_access(session, tenant, grant_id, actor=actor, now=now))
