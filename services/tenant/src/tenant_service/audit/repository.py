"""Reading the trail."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, Text, cast, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.audit_chain import ERASURE, End, Entry, Link, canonical
from tenant_service.models import AuditChainRow, AuditEntryRow

_ROWS_AT_ONCE = 1000
_REPLACE = text("SELECT system.replace_audit_details(:chain, CAST(:positions AS bigint[]), CAST(:details AS text[]))")


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are wanted; what is None does not matter. `action` ending with a dot is the beginning of one."""

    action: str | None = None
    actor: str | None = None
    target: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def _matching(chain_id: UUID, wanted: AuditFilter) -> Select[AuditEntryRow]:
    row = AuditEntryRow
    statement = select(row).where(row.chain_id == chain_id)
    if wanted.action is not None:
        whole = not wanted.action.endswith(".")
        statement = statement.where(
            row.action == wanted.action if whole else row.action.startswith(wanted.action, autoescape=True)
        )
    for column, value in ((row.actor, wanted.actor), (row.target, wanted.target), (row.request_id, wanted.request_id)):
        if value is not None:
            statement = statement.where(column == value)
    if wanted.since is not None:
        statement = statement.where(row.occurred_at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(row.occurred_at < wanted.until)
    return statement


async def list_entries(
    session: AsyncSession, chain_id: UUID, wanted: AuditFilter, *, before: int | None, limit: int
) -> Sequence[Link]:
    """At most `limit` entries before the position `before`, the newest first."""
    statement = _matching(chain_id, wanted).order_by(AuditEntryRow.position.desc()).limit(limit)
    if before is not None:
        statement = statement.where(AuditEntryRow.position < before)
    return [_link(row) for row in await session.scalars(statement)]


async def stream_entries(session: AsyncSession, chain_id: UUID, wanted: AuditFilter) -> AsyncIterator[Link]:
    """Every entry of a chain that matches, the oldest first, without holding them all."""
    async for page in _pages(session, _matching(chain_id, wanted).order_by(AuditEntryRow.position)):
        for link in page:
            yield link


async def pages_of_entries(session: AsyncSession, chain_id: UUID | None) -> AsyncIterator[Sequence[Link]]:
    """Every entry of a chain, or of all, chain after chain and the oldest first, without holding them all."""
    statement = select(AuditEntryRow).order_by(AuditEntryRow.chain_id, AuditEntryRow.position)
    if chain_id is not None:
        statement = statement.where(AuditEntryRow.chain_id == chain_id)
    async for page in _pages(session, statement):
        yield page


async def lock_chain(session: AsyncSession, chain_id: UUID) -> None:
    """Waits until nobody else writes to the chain; nobody does until the caller commits."""
    await session.execute(select(AuditChainRow.length).where(AuditChainRow.chain_id == chain_id).with_for_update())


async def find_naming(session: AsyncSession, chain_id: UUID, values: Sequence[str]) -> Sequence[Link]:
    """The entries of a chain whose details have one of the texts somewhere, erasures left out."""
    row = AuditEntryRow
    told = cast(row.detail, Text)
    named = [func.strpos(told, canonical(value)[1:-1]) > 0 for value in values]
    statement = select(row).where(row.chain_id == chain_id, row.action != ERASURE, or_(*named))
    return [_link(each) for each in await session.scalars(statement.order_by(row.position))]


async def replace_details(session: AsyncSession, chain_id: UUID, details: Mapping[int, Mapping[str, Any]]) -> None:
    """Puts other details in the place of those of entries, by position; the caller writes of it and commits."""
    texts = [canonical(dict(detail)) for detail in details.values()]
    await session.execute(_REPLACE, {"chain": chain_id, "positions": list(details), "details": texts})


async def find_ends(session: AsyncSession, chain_id: UUID | None) -> Mapping[UUID, End]:
    """What a chain, or each, says of itself; those that nothing was ever written to are not in it."""
    statement = select(AuditChainRow.chain_id, AuditChainRow.length, AuditChainRow.head)
    if chain_id is not None:
        statement = statement.where(AuditChainRow.chain_id == chain_id)
    return {each: End(length, head) for each, length, head in await session.execute(statement)}


async def _pages(session: AsyncSession, statement: Select[AuditEntryRow]) -> AsyncIterator[Sequence[Link]]:
    # Columns, of which the session remembers nothing.
    columns = statement.with_only_columns(*AuditEntryRow.__table__.columns)
    rows = await session.stream(columns.execution_options(yield_per=_ROWS_AT_ONCE))
    async for page in rows.partitions():
        yield [_link(row) for row in page]


def _link(row: AuditEntryRow | Row[Any]) -> Link:
    entry = Entry(
        id=row.id,
        chain_id=row.chain_id,
        occurred_at=row.occurred_at,
        actor=row.actor,
        actor_kind=row.actor_kind,
        credential_id=row.credential_id,
        impersonator=row.impersonator,
        action=row.action,
        target=row.target,
        detail=row.detail,
        request_id=row.request_id,
        context=row.context,
    )
    return Link(entry, row.position, row.content_hash, row.hash)
