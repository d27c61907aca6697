"""All SQL of exports. Every statement names the tenant beside the row-level policy; nothing commits here."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from app_service.domain import PackedExport
from app_service.models import Document, DocumentFile, Export, ExportChunk, FileChunk


async def find_export(session: AsyncSession, tenant_id: UUID, export_id: UUID) -> Export | None:
    return await session.scalar(select(Export).where(Export.tenant_id == tenant_id, Export.id == export_id))


async def lock_export(session: AsyncSession, tenant_id: UUID, export_id: UUID) -> Export | None:
    """The export, locked to the end of the transaction."""
    return await session.scalar(
        select(Export).where(Export.tenant_id == tenant_id, Export.id == export_id).with_for_update()
    )


async def finish_export(
    session: AsyncSession, tenant_id: UUID, export_id: UUID, packed: PackedExport, *, at: datetime
) -> None:
    await session.execute(
        update(Export)
        .where(Export.tenant_id == tenant_id, Export.id == export_id)
        .values(finished_at=at, **asdict(packed))
        .execution_options(synchronize_session=False)
    )


async def delete_export(session: AsyncSession, tenant_id: UUID, export_id: UUID) -> None:
    """With its chunks."""
    await session.execute(delete(Export).where(Export.tenant_id == tenant_id, Export.id == export_id))


async def add_chunk(session: AsyncSession, tenant_id: UUID, export_id: UUID, position: int, data: bytes) -> None:
    await session.execute(
        insert(ExportChunk).values(tenant_id=tenant_id, export_id=export_id, position=position, data=data)
    )


async def read_chunks(
    session: AsyncSession, tenant_id: UUID, export_id: UUID, *, start: int, count: int
) -> Sequence[bytes]:
    """The chunks `start` to `start + count` (excluded) in their order; fewer at the end."""
    return (
        await session.scalars(
            select(ExportChunk.data)
            .where(
                ExportChunk.tenant_id == tenant_id,
                ExportChunk.export_id == export_id,
                ExportChunk.position >= start,
                ExportChunk.position < start + count,
            )
            .order_by(ExportChunk.position)
        )
    ).all()


async def documents_after(
    session: AsyncSession, tenant_id: UUID, after: UUID | None, *, limit: int
) -> Sequence[Document]:
    """At most `limit` whole documents in the order of their ids, those behind `after`."""
    query = select(Document).where(Document.tenant_id == tenant_id).order_by(Document.id).limit(limit)
    if after is not None:
        query = query.where(Document.id > after)
    return (await session.scalars(query)).all()


async def files_after(
    session: AsyncSession, tenant_id: UUID, after: tuple[UUID, str] | None, *, limit: int
) -> Sequence[DocumentFile]:
    """At most `limit` files by document and name, those behind `after`."""
    key = tuple_(DocumentFile.document_id, DocumentFile.name)
    query = (
        select(DocumentFile)
        .where(DocumentFile.tenant_id == tenant_id)
        .order_by(DocumentFile.document_id, DocumentFile.name)
        .limit(limit)
    )
    if after is not None:
        query = query.where(key > after)
    return (await session.scalars(query)).all()


async def stream_chunks(session: AsyncSession, tenant_id: UUID, content_id: UUID) -> AsyncIterator[bytes]:
    """A content by one statement, and so all of it or nothing; few chunks are in memory at a time."""
    chunks = (
        select(FileChunk.data)
        .where(FileChunk.tenant_id == tenant_id, FileChunk.content_id == content_id)
        .order_by(FileChunk.position)
        .execution_options(yield_per=4)
    )
    async for chunk in await session.stream_scalars(chunks):
        yield chunk
