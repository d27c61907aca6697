"""The routes of documents: parse, call one use case, return.

A route that changes what is stored opens its own transaction, because the change is announced after the commit and
before the response; the others take the session that commits before the response by itself.
"""

from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query, Response, status

from app_service import repository, service
from app_service.dependencies import (
    AfterCommit,
    App,
    CreatedDocuments,
    Idempotent,
    Reader,
    Writer,
    announce,
    entitled,
)
from app_service.flags import SEARCH_BEGINNINGS, Flags
from app_service.schemas import (
    DocumentIn,
    DocumentOut,
    DocumentPatch,
    DocumentSummary,
    SearchHit,
    SearchText,
    Tag,
)
from tenantry import CurrentTenant, TenantReadSession, TenantSession
from tenantry.http import Cursor, ExpectedVersion, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor, etag

router = APIRouter(prefix="/v1", tags=["documents"], route_class=IdempotentRoute)

# What a cursor may hold is checked like any other input: anybody can make one up.
_Rank = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


@router.post(
    "/documents",
    status_code=status.HTTP_201_CREATED,
    # The quota comes last: a repeated request takes nothing of it.
    dependencies=[Writer, AfterCommit, Idempotent, entitled(quota="documents")],
)
async def create_document(
    given: DocumentIn,
    session: TenantSession,
    tenant: CurrentTenant,
    app: App,
    response: Response,
    created: CreatedDocuments,
) -> DocumentOut:
    document = await service.create_document(session, tenant, app.clock, given)
    created.append({"document": str(document.id)})
    response.headers["ETag"] = etag(document.version)
    response.headers["Location"] = f"/v1/documents/{document.id}"
    return DocumentOut.model_validate(document)


@router.get("/documents", dependencies=[Reader])
async def list_documents(
    session: TenantReadSession,
    tenant: CurrentTenant,
    limit: Limit = 50,
    cursor: Cursor = None,
    tag: Annotated[Tag | None, Query()] = None,
) -> Page[DocumentSummary]:
    """Newest first."""
    before = decode_cursor(cursor, UUID, of="documents") if cursor else None
    documents = await repository.list_documents(session, tenant.id, tag=tag, before=before, limit=limit + 1)
    items = [DocumentSummary.model_validate(document) for document in documents[:limit]]
    return Page(
        items=items, next_cursor=encode_cursor(items[-1].id, of="documents") if len(documents) > limit else None
    )


@router.get("/documents/{document_id}", dependencies=[Reader])
async def get_document(
    document_id: UUID, session: TenantReadSession, tenant: CurrentTenant, response: Response
) -> DocumentOut:
    document = await service.get_document(session, tenant, document_id)
    response.headers["ETag"] = etag(document.version)
    return DocumentOut.model_validate(document)


@router.patch("/documents/{document_id}", dependencies=[Writer])
async def change_document(
    document_id: UUID,
    patch: DocumentPatch,
    session: TenantSession,
    tenant: CurrentTenant,
    app: App,
    response: Response,
    version: ExpectedVersion,
) -> DocumentOut:
    document = await service.change_document(session, tenant, app.clock, document_id, patch, version=version)
    response.headers["ETag"] = etag(document.version)
    return DocumentOut.model_validate(document)


@router.delete("/documents/{document_id}", status_code=status.HTTP_204_NO_CONTENT, dependencies=[Writer])
async def delete_document(document_id: UUID, tenant: CurrentTenant, app: App, version: ExpectedVersion) -> None:
    async with app.databases.tenant_session(tenant) as session:
        change = await service.delete_document(session, tenant, app.clock, document_id, version=version)
    await announce(app, change)


@router.get("/search", dependencies=[Reader, entitled("search")])
async def search(
    session: TenantReadSession,
    tenant: CurrentTenant,
    q: Annotated[SearchText, Query()],
    flags: Flags,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Page[SearchHit]:
    """Documents that match, best first. Words, "phrases", `or` and `-without` as on the web.

    Where the flag `search-beginnings` is on for the tenant, a word is found by its beginning, too.
    """
    beginnings = flags.get_boolean_value(SEARCH_BEGINNINGS, default_value=False)
    after = decode_cursor(cursor, tuple[_Rank, UUID], of="search") if cursor else None
    rows = await repository.search_documents(
        session, tenant.id, text=q, beginnings=beginnings, after=after, limit=limit + 1
    )
    items = [SearchHit.model_validate(row) for row in rows[:limit]]
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(items=items, next_cursor=encode_cursor((last.rank, last.id), of="search") if last is not None else None)
