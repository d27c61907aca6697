"""What people do with exports, and what the jobs behind them do.

Those that take a `session` work in its transaction, and their caller commits.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from app_service import exports_repository, repository
from app_service.archive import Archive
from app_service.domain import PackedExport, StorageChange
from app_service.models import Document, DocumentFile, Export
from tenantry import Clock, Conflict, NotFound, Tenant, Unavailable

_DOCUMENTS_AT_ONCE: Final = 50
_FILES_AT_ONCE: Final = 500
_TRIES: Final = 5

OpenReading = Callable[[], AbstractAsyncContextManager[AsyncSession]]


class ExportNotReady(Conflict):
    """The archive is not written yet, or its job was given up."""

    type = "export-not-ready"
    title = "The export is not ready"


async def get_export(session: AsyncSession, tenant: Tenant, export_id: UUID, *, now: datetime) -> Export:
    """Raises NotFound, also once it has expired."""
    export = await exports_repository.find_export(session, tenant.id, export_id)
    if export is None or export.expires_at <= now:
        raise NotFound("There is no such export.")
    return export


async def get_archive(session: AsyncSession, tenant: Tenant, export_id: UUID, *, now: datetime) -> Export:
    """One that can be read. Raises NotFound and `ExportNotReady`."""
    export = await get_export(session, tenant, export_id, now=now)
    if export.finished_at is None:
        raise ExportNotReady("The export has not been written yet.")
    return export


async def fill(archive: Archive, tenant: Tenant, open_reading: OpenReading, now: datetime) -> PackedExport:
    """Writes everything that the tenant has: `documents.ndjson`, and the files as `files/<document>/<name>`.

    Each document and each file is as it was when it was read; what changes meanwhile may be in it or not. The archive
    is closed then.
    """
    documents = _Documents(tenant, open_reading)
    await archive.add("documents.ndjson", now, documents.lines())
    files = 0
    after: tuple[UUID, str] | None = None
    while True:
        async with open_reading() as session:
            page = await exports_repository.files_after(session, tenant.id, after, limit=_FILES_AT_ONCE)
        for file in page:
            async with open_reading() as session:
                files += await _add_file(archive, session, tenant, file)
        if len(page) < _FILES_AT_ONCE:
            break
        after = page[-1].document_id, page[-1].name
    size, sha256 = await archive.close()
    return PackedExport(documents.count, files, size, sha256)


async def store(
    session: AsyncSession, tenant: Tenant, clock: Clock, export_id: UUID, archive: Archive, packed: PackedExport
) -> StorageChange | None:
    """Keeps the archive as the export's; None where it has one already, has expired or is gone. May be repeated."""
    export = await exports_repository.lock_export(session, tenant.id, export_id)
    if export is None or export.finished_at is not None or export.expires_at <= clock.now():
        return None
    position = 0
    async for chunk in archive.chunks():
        await exports_repository.add_chunk(session, tenant.id, export_id, position, chunk)
        position += 1
    await exports_repository.finish_export(session, tenant.id, export_id, packed, at=clock.now())
    return await repository.change_storage(session, tenant.id, packed.size, tenant.now(clock))


async def expire(session: AsyncSession, tenant: Tenant, clock: Clock, export_id: UUID) -> StorageChange | None:
    """Deletes an export with its archive; None where that freed nothing. May be repeated."""
    export = await exports_repository.lock_export(session, tenant.id, export_id)
    if export is None:
        return None
    await exports_repository.delete_export(session, tenant.id, export_id)
    if export.size == 0:
        return None
    return await repository.change_storage(session, tenant.id, -export.size, tenant.now(clock))


class _Documents:
    """The documents as lines of JSON, counted as they are read."""

    def __init__(self, tenant: Tenant, open_reading: OpenReading) -> None:
        self.count = 0
        self._tenant = tenant
        self._open_reading = open_reading

    async def lines(self) -> AsyncIterator[bytes]:
        after: UUID | None = None
        while True:
            async with self._open_reading() as session:
                page = await exports_repository.documents_after(
                    session, self._tenant.id, after, limit=_DOCUMENTS_AT_ONCE
                )
            if page:
                yield b"".join(map(_line, page))
                self.count += len(page)
            if len(page) < _DOCUMENTS_AT_ONCE:
                return
            after = page[-1].id


def _line(document: Document) -> bytes:
    fields = ("id", "title", "body", "tags", "version", "created_at", "updated_at")
    return msgspec.json.encode({name: getattr(document, name) for name in fields}) + b"\n"


async def _add_file(archive: Archive, session: AsyncSession, tenant: Tenant, listed: DocumentFile) -> bool:
    """Whether the file is in the archive: it may have been deleted since it was listed."""
    for _ in range(_TRIES):
        file = await repository.find_file(session, tenant.id, listed.document_id, listed.name)
        if file is None:
            return False
        chunks = exports_repository.stream_chunks(session, tenant.id, file.content_id)
        first = await anext(chunks, b"")
        if first or file.size == 0:  # else it has another content since a moment ago
            await archive.add(f"files/{file.document_id}/{file.name}", file.updated_at, _chain(first, chunks))
            return True
    raise Unavailable("A file of the tenant changes faster than it can be read.")


async def _chain(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in others:
        yield piece
