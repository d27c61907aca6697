"""All SQL of documents and files.

Every statement names the tenant beside the row-level policy: the policy is the floor, the predicate gives the plan.
Nothing commits here.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    Text,
    cast,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import REGCONFIG, TSQUERY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from app_service.domain import StorageChange
from app_service.models import Document, DocumentFile, FileChunk, StorageTotal

_SUMMARY = (
    Document.id,
    Document.title,
    Document.tags,
    Document.version,
    Document.created_at,
    Document.updated_at,
)
_RANK_STEPS = 1_000_000  # a rank in whole steps, so that a cursor repeats it exactly


async def find_document(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> Document | None:
    return await session.scalar(select(Document).where(Document.tenant_id == tenant_id, Document.id == document_id))


async def list_documents(
    session: AsyncSession, tenant_id: UUID, *, tag: str | None, before: UUID | None, limit: int
) -> Sequence[Row[*tuple[Any, ...]]]:
    """At most `limit` rows of the summary, newest first, older than `before`."""
    query = select(*_SUMMARY).where(Document.tenant_id == tenant_id).order_by(Document.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Document.id < before)
    if tag is not None:
        query = query.where(Document.tags.contains([tag]))
    return (await session.execute(query)).all()


async def search_documents(
    session: AsyncSession,
    tenant_id: UUID,
    *,
    text: str,
    beginnings: bool,
    after: tuple[int, UUID] | None,
    limit: int,
) -> Sequence[Row[*tuple[Any, ...]]]:
    """At most `limit` rows of the summary with `rank` and `excerpt`, best first, those behind `after` (rank, id).

    With `beginnings` a word of `text` stands for all that begin so.

    Reads all documents of the tenant and no others: `@@` is not leakproof, so under a row-level policy PostgreSQL uses
    the key on the tenant and never an index on the words.
    """
    query: ColumnElement[Any] = func.websearch_to_tsquery(cast("simple", REGCONFIG), text)
    if beginnings:
        # Written out, each word stands in quotes, those in it doubled.
        query = cast(func.regexp_replace(cast(query, Text), "'([^']|'')+'", r"\&:*", "g"), TSQUERY)
    rank = cast(func.ts_rank(Document.search, query) * _RANK_STEPS, Integer).label("rank")
    matches = (
        select(*_SUMMARY, Document.body, rank)
        .where(Document.tenant_id == tenant_id, Document.search.bool_op("@@")(query))
        .order_by(rank.desc(), Document.id.desc())
        .limit(limit)
    )
    if after is not None:
        matches = matches.where(tuple_(rank.element, Document.id) < tuple_(literal(after[0]), literal(after[1])))
    page = matches.subquery("page")
    excerpt = func.ts_headline(
        cast("simple", REGCONFIG), page.c.body, query, literal('StartSel="",StopSel="",MaxWords=24,MinWords=8')
    )
    columns = [column for column in page.c if column.name != "body"]
    return (
        await session.execute(select(*columns, excerpt.label("excerpt")).order_by(page.c.rank.desc(), page.c.id.desc()))
    ).all()


async def change_document(
    session: AsyncSession,
    tenant_id: UUID,
    document_id: UUID,
    *,
    version: int | None,
    values: dict[str, Any],
    now: datetime,
) -> Document | None:
    """The changed document; None if there is none, or none of that `version`."""
    statement = (
        update(Document)
        .where(Document.tenant_id == tenant_id, Document.id == document_id)
        .values(**values, version=Document.version + 1, updated_at=now)
        .returning(Document)
        .execution_options(synchronize_session=False)
    )
    if version is not None:
        statement = statement.where(Document.version == version)
    return await session.scalar(statement)


async def lock_document(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> int | None:
    """The version of the document, locked to the end of the transaction against other changes of it or its files."""
    return await session.scalar(
        select(Document.version)
        .where(Document.tenant_id == tenant_id, Document.id == document_id)
        .with_for_update(key_share=True)
    )


async def delete_document(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> None:
    """With its files and their chunks."""
    await session.execute(delete(Document).where(Document.tenant_id == tenant_id, Document.id == document_id))


async def size_of_files(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> int:
    """The bytes in the files of a document."""
    total = await session.scalar(
        select(func.coalesce(func.sum(DocumentFile.size), 0)).where(
            DocumentFile.tenant_id == tenant_id, DocumentFile.document_id == document_id
        )
    )
    return int(total or 0)


async def find_file(session: AsyncSession, tenant_id: UUID, document_id: UUID, name: str) -> DocumentFile | None:
    return await session.scalar(
        select(DocumentFile).where(
            DocumentFile.tenant_id == tenant_id, DocumentFile.document_id == document_id, DocumentFile.name == name
        )
    )


async def list_files(
    session: AsyncSession, tenant_id: UUID, document_id: UUID, *, after: str | None, limit: int
) -> Sequence[DocumentFile]:
    """At most `limit` files by name, those after `after`."""
    query = (
        select(DocumentFile)
        .where(DocumentFile.tenant_id == tenant_id, DocumentFile.document_id == document_id)
        .order_by(DocumentFile.name)
        .limit(limit)
    )
    if after is not None:
        query = query.where(DocumentFile.name > after)
    return (await session.scalars(query)).all()


async def put_file(session: AsyncSession, file: DocumentFile) -> None:
    """Insert the row of a file, or replace the one of the same name; its old chunks must be gone."""
    values = {column.key: getattr(file, column.key) for column in DocumentFile.__table__.columns}
    statement = upsert(DocumentFile).values(**values)
    replaced = ("content_id", "content_type", "size", "sha256", "version", "updated_at")
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=[DocumentFile.tenant_id, DocumentFile.document_id, DocumentFile.name],
            set_={name: statement.excluded[name] for name in replaced},
        )
    )


async def delete_file(session: AsyncSession, file: DocumentFile) -> None:
    """With its chunks."""
    await session.execute(
        delete(DocumentFile).where(
            DocumentFile.tenant_id == file.tenant_id,
            DocumentFile.document_id == file.document_id,
            DocumentFile.name == file.name,
        )
    )


async def add_chunk(session: AsyncSession, tenant_id: UUID, content_id: UUID, position: int, data: bytes) -> None:
    await session.execute(
        insert(FileChunk).values(tenant_id=tenant_id, content_id=content_id, position=position, data=data)
    )


async def delete_chunks(session: AsyncSession, tenant_id: UUID, content_id: UUID) -> None:
    await session.execute(delete(FileChunk).where(FileChunk.tenant_id == tenant_id, FileChunk.content_id == content_id))


async def read_chunks(
    session: AsyncSession, tenant_id: UUID, content_id: UUID, *, start: int, count: int
) -> Sequence[bytes]:
    """The chunks `start` to `start + count` (excluded) in their order; fewer at the end of the content."""
    return (
        await session.scalars(
            select(FileChunk.data)
            .where(
                FileChunk.tenant_id == tenant_id,
                FileChunk.content_id == content_id,
                FileChunk.position >= start,
                FileChunk.position < start + count,
            )
            .order_by(FileChunk.position)
        )
    ).all()


async def change_storage(session: AsyncSession, tenant_id: UUID, delta: int, now: datetime) -> StorageChange:
    """Add `delta` bytes to the tenant's total and keep its row locked to the end of the transaction."""
    # The checks of the table see the proposed row even where a row exists and is updated instead.
    statement = upsert(StorageTotal).values(tenant_id=tenant_id, bytes=max(delta, 0), changed_at=now)
    result = await session.execute(
        statement.on_conflict_do_update(
            index_elements=[StorageTotal.tenant_id],
            set_={
                "bytes": StorageTotal.bytes + delta,
                # Two changes within one microsecond, or under a test clock that stands still, keep their order.
                "changed_at": func.greatest(
                    statement.excluded.changed_at,
                    StorageTotal.changed_at + literal_column("interval '1 microsecond'"),
                ),
            },
        ).returning(StorageTotal.bytes, StorageTotal.changed_at)
    )
    total, at = result.one()
    return StorageChange(total=total, delta=delta, at=at)
