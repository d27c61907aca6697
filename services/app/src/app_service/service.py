"""What people do with documents and files.

Every use case works in the transaction of the `session` it is given, and its caller commits. Those that change what is
stored return a StorageChange, to be announced after the commit.
"""

from collections.abc import AsyncIterable, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app_service import repository
from app_service.domain import StorageChange, StoredFile
from app_service.models import Document, DocumentFile
from app_service.schemas import DocumentIn, DocumentPatch
from tenantry import Clock, NotFound, StaleVersion, Tenant, uuid7
from tenantry.http import ABSENT


async def create_document(session: AsyncSession, tenant: Tenant, clock: Clock, given: DocumentIn) -> Document:
    """The new document, version 1. Not idempotent: the caller's Idempotency-Key is."""
    now = tenant.now(clock)
    document = Document(
        tenant_id=tenant.id, id=uuid7(), version=1, created_at=now, updated_at=now, **given.model_dump()
    )
    session.add(document)
    await session.flush()
    return document


async def get_document(session: AsyncSession, tenant: Tenant, document_id: UUID) -> Document:
    """Raises NotFound."""
    document = await repository.find_document(session, tenant.id, document_id)
    if document is None:
        raise document_not_found()
    return document


async def change_document(
    session: AsyncSession,
    tenant: Tenant,
    clock: Clock,
    document_id: UUID,
    patch: DocumentPatch,
    *,
    version: int | None,
) -> Document:
    """The changed document. Raises NotFound, and StaleVersion when `version` is given and no longer the present one."""
    document = await repository.change_document(
        session,
        tenant.id,
        document_id,
        version=version,
        values=patch.model_dump(exclude_unset=True),
        now=tenant.now(clock),
    )
    if document is None:
        present = await get_document(session, tenant, document_id)
        raise StaleVersion(f"The document is at version {present.version}.")
    return document


async def delete_document(
    session: AsyncSession, tenant: Tenant, clock: Clock, document_id: UUID, *, version: int | None
) -> StorageChange | None:
    """Delete a document with its files; None if that freed no storage. Raises NotFound and StaleVersion."""
    present = await _lock(session, tenant, document_id)
    _check_version("document", version, present)
    size = await repository.size_of_files(session, tenant.id, document_id)
    await repository.delete_document(session, tenant.id, document_id)
    return await _change_storage(session, tenant, clock, -size)


async def store_file(
    session: AsyncSession,
    tenant: Tenant,
    clock: Clock,
    *,
    document_id: UUID,
    name: str,
    content_type: str,
    size: int,
    sha256: bytes,
    chunks: AsyncIterable[bytes],
    version: int | None,
) -> tuple[StoredFile, StorageChange | None]:
    """Add a file to a document, or replace the content of the one with that `name`.

    Raises NotFound, and StaleVersion when `version` is given and not that of the file that is there.
    The tenant's total is locked last, so that uploads to several documents write their chunks side by side.
    """
    await _lock(session, tenant, document_id)
    replaced = await repository.find_file(session, tenant.id, document_id, name)
    _check_version("file", version, replaced.version if replaced else None)
    if replaced is not None:
        await repository.delete_chunks(session, tenant.id, replaced.content_id)
    file = DocumentFile(
        tenant_id=tenant.id,
        document_id=document_id,
        name=name,
        content_id=uuid7(),
        content_type=content_type,
        size=size,
        sha256=sha256,
        version=replaced.version + 1 if replaced else 1,
        updated_at=tenant.now(clock),
    )
    await repository.put_file(session, file)
    position = 0
    async for chunk in chunks:
        await repository.add_chunk(session, tenant.id, file.content_id, position, chunk)
        position += 1
    change = await _change_storage(session, tenant, clock, size - (replaced.size if replaced else 0))
    stored = StoredFile(name, content_type, size, sha256, file.version, file.updated_at, created=replaced is None)
    return stored, change


async def get_file(session: AsyncSession, tenant: Tenant, document_id: UUID, name: str) -> DocumentFile:
    """Raises NotFound."""
    file = await repository.find_file(session, tenant.id, document_id, name)
    if file is None:
        raise document_not_found()
    return file


async def list_files(
    session: AsyncSession, tenant: Tenant, document_id: UUID, *, after: str | None, limit: int
) -> Sequence[DocumentFile]:
    """Raises NotFound."""
    await get_document(session, tenant, document_id)
    return await repository.list_files(session, tenant.id, document_id, after=after, limit=limit)


async def delete_file(
    session: AsyncSession, tenant: Tenant, clock: Clock, document_id: UUID, name: str, *, version: int | None
) -> StorageChange | None:
    """None if the file was empty. Raises NotFound and StaleVersion."""
    await _lock(session, tenant, document_id)
    file = await get_file(session, tenant, document_id, name)
    _check_version("file", version, file.version)
    await repository.delete_file(session, file)
    return await _change_storage(session, tenant, clock, -file.size)


def document_not_found() -> NotFound:
    """One answer for what never was, was deleted, or is another tenant's."""
    return NotFound("There is no such document or file.")


async def _lock(session: AsyncSession, tenant: Tenant, document_id: UUID) -> int:
    version = await repository.lock_document(session, tenant.id, document_id)
    if version is None:
        raise document_not_found()
    return version


def _check_version(what: str, expected: int | None, present: int | None) -> None:
    if expected is not None and expected != (present or ABSENT):
        raise StaleVersion(f"The {what} is at version {present}." if present else f"There is no such {what} yet.")


async def _change_storage(session: AsyncSession, tenant: Tenant, clock: Clock, delta: int) -> StorageChange | None:
    if delta == 0:
        return None
    return await repository.change_storage(session, tenant.id, delta, tenant.now(clock))
