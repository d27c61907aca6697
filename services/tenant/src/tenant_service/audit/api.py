"""Routes of the trail: a tenant's own, and the platform's; and of taking a person out of it."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import PLATFORM_CHAIN, repository, service
from tenant_service.audit.repository import AuditFilter
from tenant_service.audit.schemas import AuditEntryOut, AuditErasureIn, AuditErasureOut, VerificationOut
from tenant_service.dependencies import (
    CurrentActor,
    CurrentRuntime,
    Idempotent,
    Now,
    Platform,
    TenantReference,
    Transaction,
    check_may_read,
)
from tenant_service.tenants.repository import find_tenant
from tenantry import CurrentPrincipal
from tenantry.http import Cursor, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor, require_scope
from tenantry.identity import Scope

NDJSON = "application/x-ndjson"

router = APIRouter(tags=["audit"])
erasures_router = APIRouter(
    prefix="/v1/tenants/{tenant_id}/audit/erasures",
    tags=["audit"],
    route_class=IdempotentRoute,
    dependencies=[Platform],
)

Text = Annotated[str | None, Query(max_length=200)]


async def _filter(
    action: Annotated[
        str | None, Query(max_length=200, description="An action, or with a dot at its end the beginning of actions.")
    ] = None,
    actor: Text = None,
    target: Text = None,
    request_id: Text = None,
    since: Annotated[AwareDatetime | None, Query(alias="from", description="The first instant.")] = None,
    until: Annotated[AwareDatetime | None, Query(alias="to", description="The first instant after.")] = None,
) -> AuditFilter:
    return AuditFilter(action, actor, target, request_id, since, until)


Wanted = Annotated[AuditFilter, Depends(_filter)]
# The trail of a tenant is open to those who run the tenant, and to operators.
Auditor = Depends(require_scope(Scope.PLATFORM, Scope.TENANT_ADMIN))


@router.get("/v1/tenants/{tenant_id}/audit", dependencies=[Auditor])
async def list_tenant_audit(
    tenant_id: TenantReference,
    wanted: Wanted,
    session: Transaction,
    principal: CurrentPrincipal,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[AuditEntryOut]:
    """What was done to the tenant and by whom, the newest first."""
    chain_id = await _chain_of(session, principal, tenant_id)
    return await _page(session, chain_id, wanted, limit, cursor)


@router.get(
    "/v1/tenants/{tenant_id}/audit/export",
    dependencies=[Auditor],
    response_class=StreamingResponse,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
)
async def export_tenant_audit(
    tenant_id: TenantReference, wanted: Wanted, runtime: CurrentRuntime, principal: CurrentPrincipal
) -> StreamingResponse:
    """The same entries with their hashes, the oldest first, a line of JSON each."""
    async with runtime.transactions.begin() as session:
        chain_id = await _chain_of(session, principal, tenant_id)
    return _exported(runtime, chain_id, wanted)


@router.get("/v1/tenants/{tenant_id}/audit/verify", dependencies=[Auditor])
async def verify_tenant_audit(
    tenant_id: TenantReference, runtime: CurrentRuntime, principal: CurrentPrincipal
) -> VerificationOut:
    """Compute the tenant's chain anew; a broken one is named by its first broken entry."""
    async with runtime.transactions.begin() as session:
        chain_id = await _chain_of(session, principal, tenant_id)
    async with runtime.transactions.begin() as session:
        return VerificationOut.of(await service.verify(session, chain_id))


@erasures_router.post("", status_code=201, dependencies=[Idempotent])
async def erase_from_tenant_audit(
    tenant_id: TenantReference, body: AuditErasureIn, session: Transaction, actor: CurrentActor, now: Now
) -> AuditErasureOut:
    """Take a person's values out of the details of the tenant's entries, and write into the chain that it was done.

    Operators alone: to those who run the tenant, the trail is what they have done. Who acted, on what and when stays.
    """
    tenant, _ = await find_tenant(session, tenant_id)
    return AuditErasureOut.of(tenant.id, await service.erase_person(session, actor, tenant.id, body.values, now=now))


@router.get("/v1/audit", dependencies=[Platform])
async def list_platform_audit(
    wanted: Wanted, session: Transaction, limit: Limit = 50, cursor: Cursor = None
) -> Page[AuditEntryOut]:
    """What was done to the platform itself: tiers, keys, clocks, sign-ins of operators."""
    return await _page(session, PLATFORM_CHAIN, wanted, limit, cursor)


@router.get(
    "/v1/audit/export",
    dependencies=[Platform],
    response_class=StreamingResponse,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
)
async def export_platform_audit(wanted: Wanted, runtime: CurrentRuntime) -> StreamingResponse:
    """The platform's entries with their hashes, the oldest first, a line of JSON each."""
    return _exported(runtime, PLATFORM_CHAIN, wanted)


@router.get("/v1/audit/verify", dependencies=[Platform])
async def verify_audit(runtime: CurrentRuntime) -> VerificationOut:
    """Compute every chain anew. Keep the digest elsewhere: it is what a history that was written anew cannot match."""
    async with runtime.transactions.begin() as session:
        return VerificationOut.of(await service.verify(session))


async def _chain_of(session: AsyncSession, principal: CurrentPrincipal, reference: str) -> UUID:
    tenant, _ = await find_tenant(session, reference)
    check_may_read(principal, tenant.id)
    return tenant.id


async def _page(
    session: AsyncSession, chain_id: UUID, wanted: AuditFilter, limit: int, cursor: str | None
) -> Page[AuditEntryOut]:
    of = f"audit {chain_id}"
    before = None if cursor is None else decode_cursor(cursor, int, of=of)
    links = await repository.list_entries(session, chain_id, wanted, before=before, limit=limit + 1)
    items = [AuditEntryOut.of(link) for link in links[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].position, of=of) if len(links) > limit else None)


def _exported(runtime: CurrentRuntime, chain_id: UUID, wanted: AuditFilter) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        # A transaction of its own: that of a route ends before its answer's body is sent.
        async with runtime.transactions.begin() as session:
            async for link in repository.stream_entries(session, chain_id, wanted):
                yield AuditEntryOut.of(link).model_dump_json() + "\n"

    return StreamingResponse(lines(), media_type=NDJSON)
