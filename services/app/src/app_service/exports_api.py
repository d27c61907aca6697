"""The routes of exports: asked for, looked after while a job writes them, and read."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response, status
from fastapi.responses import StreamingResponse

from app_service import exports, exports_repository
from app_service.dependencies import App, ExportDays, Idempotent, Reader, Writer, entitled
from app_service.domain import ExportState, export_state
from app_service.jobs import jobs, request_export
from app_service.models import Export
from app_service.schemas import ExportOut
from app_service.streams import send
from tenantry import CurrentTenant, Operation, Tenant, TenantReadSession, TenantSession
from tenantry.database import ReadSession
from tenantry.http import IdempotentRoute

router = APIRouter(prefix="/v1/exports", tags=["exports"], route_class=IdempotentRoute)

_ZIP: dict[str, Any] = {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}


@router.post("", status_code=status.HTTP_202_ACCEPTED, dependencies=[Writer, Idempotent, entitled("exports")])
async def create_export(
    session: TenantSession, tenant: CurrentTenant, app: App, days: ExportDays, response: Response
) -> ExportOut:
    """Have a ZIP archive written of all documents (`documents.ndjson`) and files (`files/{document}/{name}`)."""
    now = app.clock.now()
    export = await request_export(session, tenant, now=now, expires_at=now + timedelta(days=days))
    response.headers["Location"] = f"/v1/exports/{export.id}"
    return await _out(session, export)


@router.get("/{export_id}", dependencies=[Reader])
async def get_export(export_id: UUID, session: TenantReadSession, tenant: CurrentTenant, app: App) -> ExportOut:
    return await _out(session, await exports.get_export(session, tenant, export_id, now=app.clock.now()))


@router.get("/{export_id}/content", response_class=StreamingResponse, responses={200: _ZIP}, dependencies=[Reader])
async def get_export_content(
    export_id: UUID, session: TenantReadSession, tenant: CurrentTenant, app: App
) -> StreamingResponse:
    """The archive; 409 `export-not-ready` while there is none."""
    export = await exports.get_archive(session, tenant, export_id, now=app.clock.now())
    return StreamingResponse(
        _content(app, tenant, export),
        media_type="application/zip",
        headers={
            "Content-Length": str(export.size),
            "Content-Disposition": f'attachment; filename="export-{export.id}.zip"',
            "Cache-Control": "private, no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )


async def _out(session: ReadSession, export: Export) -> ExportOut:
    job = None if export.finished_at is not None else await jobs.state(session, export.job_id)
    if job is None:
        # It may have ended between the two looks.
        await session.refresh(export)
    finished = export.finished_at is not None
    state = export_state(None if job is None else job.status, finished=finished)
    ready = state is ExportState.READY
    return ExportOut(
        id=export.id,
        state=state,
        created_at=export.created_at,
        expires_at=export.expires_at,
        finished_at=export.finished_at,
        documents=export.documents if ready else None,
        files=export.files if ready else None,
        size=export.size if ready else None,
        sha256=None if export.sha256 is None else export.sha256.hex(),
        error=None if job is None else job.error_type,
    )


def _content(app: App, tenant: Tenant, export: Export) -> AsyncIterator[bytes]:
    export_id = export.id

    async def read(start: int, count: int) -> Sequence[bytes]:
        async with (
            app.scope(tenant.id, Operation.READ) as present,
            app.databases.tenant_session(present, read_only=True) as session,
        ):
            return await exports_repository.read_chunks(session, present.id, export_id, start=start, count=count)

    return send(export.size, read)
