"""Routes of a tenant's end, and of exports, which a tenant may ask for at any time."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import obstore
from fastapi import APIRouter, Depends, Path, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession

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
from tenant_service.offboarding import repository, service
from tenant_service.offboarding.schemas import CertificateOut, ExportOut, Offboarding, Purge, PurgesOut
from tenant_service.offboarding.service import ExportExpired
from tenant_service.runs.schemas import RunOut
from tenant_service.tenants.repository import find_tenant
from tenant_service.tenants.schemas import TenantOut, shown
from tenantry import CurrentPrincipal, NotFound
from tenantry.http import (
    Cursor,
    IdempotentRoute,
    Limit,
    Page,
    decode_cursor,
    encode_cursor,
    require_scope,
)
from tenantry.identity import Scope
from tenantry.offboarding import ExportNotConfigured

router = APIRouter(prefix="/v1/tenants/{tenant_id}", tags=["offboarding"], route_class=IdempotentRoute)

purges = APIRouter(tags=["offboarding"], route_class=IdempotentRoute)

# Its own data belongs to the tenant: whoever runs it may take a copy.
Exporter = Depends(require_scope(Scope.PLATFORM, Scope.TENANT_ADMIN))
FileName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
ServiceName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


@router.post("/offboard", status_code=202, dependencies=[Platform, Idempotent])
async def offboard_tenant(
    tenant_id: TenantReference,
    body: Offboarding,
    response: Response,
    session: Transaction,
    runtime: CurrentRuntime,
    actor: CurrentActor,
    now: Now,
) -> TenantOut:
    """Stop the tenant; its data is deleted when the grace has ended, unless it is taken back before."""
    can_export = runtime.exports is not None
    if body.export and not can_export:
        raise ExportNotConfigured
    tenant = await service.offboard_tenant(
        session,
        tenant_id,
        grace=timedelta(days=body.grace_days),
        export=can_export if body.export is None else body.export,
        note=body.note,
        actor=actor,
        now=now,
    )
    return shown(tenant, response)


@router.post("/cancel-offboarding", dependencies=[Platform])
async def cancel_offboarding(
    tenant_id: TenantReference, response: Response, session: Transaction, actor: CurrentActor, now: Now
) -> TenantOut:
    """Take the offboarding back; the tenant is what it was before."""
    return shown(await service.cancel_offboarding(session, tenant_id, actor=actor, now=now), response)


@router.post("/purge", status_code=202, dependencies=[Platform])
async def purge_tenant(
    tenant_id: TenantReference, response: Response, session: Transaction, actor: CurrentActor, now: Now
) -> TenantOut:
    """Delete the data of a tenant whose grace has ended; nothing brings it back. The certificate says what was done."""
    return shown(await service.purge_tenant(session, tenant_id, actor=actor, now=now), response)


@router.post("/purge-again", status_code=202, dependencies=[Platform])
async def purge_again(tenant_id: TenantReference, session: Transaction, actor: CurrentActor, now: Now) -> RunOut:
    """Delete what a restored backup has brought back of a purged tenant. Repeating it while it runs changes nothing."""
    return RunOut.of(await service.purge_again(session, tenant_id, actor=actor, now=now))


@purges.post("/v1/purges", status_code=202, dependencies=[Platform])
async def purge_all_again(body: Purge, session: Transaction, actor: CurrentActor, now: Now) -> PurgesOut:
    """Do that for every tenant that was purged since a backup was taken, before the restored service is used."""
    return PurgesOut(tenants=await service.purge_all_again(session, body.purged_since, actor=actor, now=now))


@router.get("/purge-certificate", dependencies=[Platform])
async def get_certificate(tenant_id: TenantReference, session: Transaction) -> CertificateOut:
    """What was deleted, what is kept and why, by service and table."""
    tenant, _ = await find_tenant(session, tenant_id)
    row = await repository.find_certificate(session, tenant.id)
    return CertificateOut(certificate=row.document, digest=row.digest)


@router.post("/export", status_code=202, dependencies=[Exporter, Idempotent])
async def export_tenant(
    tenant_id: TenantReference,
    response: Response,
    session: Transaction,
    runtime: CurrentRuntime,
    principal: CurrentPrincipal,
    actor: CurrentActor,
    now: Now,
) -> RunOut:
    """Have every service write the tenant's data into files."""
    if runtime.exports is None:
        raise ExportNotConfigured
    owner = await _tenant_of(session, principal, tenant_id)
    run = await service.export_tenant(session, str(owner), actor=actor, now=now)
    response.headers["Location"] = f"/v1/tenants/{owner}/exports/{run.row.id}"
    return RunOut.of(run)


@router.get("/exports", dependencies=[Exporter])
async def list_exports(
    tenant_id: TenantReference,
    session: Transaction,
    runtime: CurrentRuntime,
    principal: CurrentPrincipal,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Page[ExportOut]:
    """The tenant's exports, the newest first."""
    owner = await _tenant_of(session, principal, tenant_id)
    of = f"exports {owner}"
    before = None if cursor is None else decode_cursor(cursor, UUID, of=of)
    found = await repository.list_exports(session, owner, before=before, limit=limit + 1)
    items = [ExportOut.of(export, runtime.settings.exports_kept) for export in found[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id, of=of) if len(found) > limit else None)


@router.get("/exports/{export_id}", dependencies=[Exporter])
async def get_export(
    tenant_id: TenantReference,
    export_id: UUID,
    session: Transaction,
    runtime: CurrentRuntime,
    principal: CurrentPrincipal,
) -> ExportOut:
    """An export and its files."""
    owner = await _tenant_of(session, principal, tenant_id)
    return ExportOut.of(await repository.find_export(session, owner, export_id), runtime.settings.exports_kept)


@router.get(
    "/exports/{export_id}/files/{service_name}/{file}",
    dependencies=[Exporter],
    response_class=StreamingResponse,
    responses={200: {"content": {"application/gzip": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def get_export_file(
    tenant_id: TenantReference,
    export_id: UUID,
    service_name: ServiceName,
    file: FileName,
    runtime: CurrentRuntime,
    principal: CurrentPrincipal,
    now: Now,
) -> StreamingResponse:
    """A file of an export, until the export expires."""
    if runtime.exports is None:
        raise ExportNotConfigured
    async with runtime.transactions.begin() as session:
        owner = await _tenant_of(session, principal, tenant_id)
        export = await repository.find_export(session, owner, export_id)
    until = export.expires_at(runtime.settings.exports_kept)
    if until is not None and now >= until:
        raise ExportExpired(f"They were kept until {until.isoformat()}")
    # Only what a service has answered with is looked for: nothing of the address goes to the store.
    tables = export.results.get(service_name, {}).get("tables", ())
    names = [table["file"] for table in tables if table.get("file")]
    name = next((name for name in names if name.rpartition("/")[2] == file), None)
    if name is None:
        raise NotFound
    try:
        found = await obstore.get_async(runtime.exports, name)
    except FileNotFoundError as error:
        raise NotFound from error

    async def body() -> AsyncIterator[bytes]:
        async for chunk in found.stream():
            yield bytes(chunk)

    headers = {
        "Content-Length": str(found.meta["size"]),
        "Content-Disposition": f'attachment; filename="{file}"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
    }
    return StreamingResponse(body(), media_type="application/gzip", headers=headers)


async def _tenant_of(session: AsyncSession, principal: CurrentPrincipal, reference: str) -> UUID:
    tenant, _ = await find_tenant(session, reference)
    check_may_read(principal, tenant.id)
    return tenant.id
