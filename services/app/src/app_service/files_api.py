"""The routes of attachments, whose bytes stream both ways."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import msgspec
from fastapi import APIRouter, Path, Request, Response, status
from fastapi.responses import StreamingResponse

from app_service import repository, service
from app_service.dependencies import App, MaxFileBytes, Reader, Writer, announce
from app_service.domain.text import MAX_FILE_NAME_LENGTH
from app_service.models import DocumentFile
from app_service.schemas import FileName, FileOut
from app_service.streams import receive, send
from tenantry import CurrentTenant, Operation, Tenant, TenantReadSession
from tenantry.http import Cursor, ExpectedVersion, Limit, Page, decode_cursor, encode_cursor, etag

router = APIRouter(prefix="/v1/documents/{document_id}/files", tags=["files"])

Name = Annotated[FileName, Path()]

_NameInCursor = Annotated[str, msgspec.Meta(max_length=MAX_FILE_NAME_LENGTH, pattern=r"^[^\x00]*$")]
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}", re.ASCII)
_ANY_BYTES: dict[str, Any] = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
}
# What a tenant uploads is never run in this origin, whatever it says it is.
_INERT = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}


@router.get("", dependencies=[Reader])
async def list_files(
    document_id: UUID, session: TenantReadSession, tenant: CurrentTenant, limit: Limit = 50, cursor: Cursor = None
) -> Page[FileOut]:
    """By name."""
    after = decode_cursor(cursor, _NameInCursor, of="files") if cursor else None
    files = await service.list_files(session, tenant, document_id, after=after, limit=limit + 1)
    items = [FileOut.model_validate(file) for file in files[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].name, of="files") if len(files) > limit else None)


@router.put(
    "/{name}",
    status_code=status.HTTP_201_CREATED,
    responses={200: {"model": FileOut, "description": "Another content was replaced"}},
    openapi_extra={"requestBody": {"required": True, **_ANY_BYTES}},
    dependencies=[Writer],
)
async def put_file(
    document_id: UUID,
    name: Name,
    request: Request,
    tenant: CurrentTenant,
    app: App,
    limit: MaxFileBytes,
    response: Response,
    version: ExpectedVersion,
) -> FileOut:
    """Store the body under `name`, all of it or nothing."""
    async with app.databases.tenant_session(tenant, read_only=True) as session:
        # Nobody sends 32 MiB to learn that there is no such document.
        await service.get_document(session, tenant, document_id)
    async with (
        receive(request.stream(), limit=limit) as upload,
        # A slow client may outlive a suspension or a move of its tenant: what is true now decides.
        app.scope(tenant.id, Operation.WRITE) as present,
        app.databases.tenant_session(present) as writing,
    ):
        stored, change = await service.store_file(
            writing,
            present,
            app.clock,
            document_id=document_id,
            name=name,
            content_type=_media_type(request),
            size=upload.size,
            sha256=upload.sha256,
            chunks=upload.chunks(),
            version=version,
        )
    await announce(app, change)
    response.headers["ETag"] = etag(stored.version)
    response.status_code = status.HTTP_201_CREATED if stored.created else status.HTTP_200_OK
    return FileOut.model_validate(stored)


@router.get("/{name}", response_class=StreamingResponse, responses={200: _ANY_BYTES}, dependencies=[Reader])
async def get_file(
    document_id: UUID, name: Name, session: TenantReadSession, tenant: CurrentTenant, app: App
) -> StreamingResponse:
    file = await service.get_file(session, tenant, document_id, name)
    return StreamingResponse(
        _content(app, tenant, file),
        media_type=file.content_type,
        headers={
            "Content-Length": str(file.size),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name, safe='')}",
            "Cache-Control": "private, no-cache",
            "ETag": etag(file.version),
            **_INERT,
        },
    )


@router.delete("/{name}", status_code=status.HTTP_204_NO_CONTENT, dependencies=[Writer])
async def delete_file(document_id: UUID, name: Name, tenant: CurrentTenant, app: App, version: ExpectedVersion) -> None:
    async with app.databases.tenant_session(tenant) as session:
        change = await service.delete_file(session, tenant, app.clock, document_id, name, version=version)
    await announce(app, change)


def _content(app: App, tenant: Tenant, file: DocumentFile) -> AsyncIterator[bytes]:
    content_id = file.content_id

    async def read(start: int, count: int) -> Sequence[bytes]:
        async with (
            app.scope(tenant.id, Operation.READ) as present,
            app.databases.tenant_session(present, read_only=True) as session,
        ):
            return await repository.read_chunks(session, present.id, content_id, start=start, count=count)

    return send(file.size, read)


def _media_type(request: Request) -> str:
    """What the client says it sends, without parameters, where that is a media type at all."""
    stated = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return stated if _MEDIA_TYPE.fullmatch(stated) else "application/octet-stream"
