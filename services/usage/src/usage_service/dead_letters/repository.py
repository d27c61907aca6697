"""Rows of dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

_COLUMNS: Final = """
tenant_id, id, kind, reason, meter_id, type, source, event_id, kafka_partition, kafka_offset, received_at, payload,
created_at, replayed_at, replayed_by
"""
_CLAUSES: Final = {
    "tenant": "tenant_id = :tenant",
    "kind": "kind = :kind",
    "meter": "meter_id IN (SELECT id FROM system.meter WHERE slug = :meter)",
    "type": "type = :type",
    "start": "received_at >= :start",
    "to": "received_at < :to",
    "replayed": "(replayed_at IS NOT NULL) = :replayed",
}
_PAGE_BYTES: Final = 4 << 20
_FIND = text(f"SELECT {_COLUMNS} FROM pool.dead_letter WHERE id = :id")  # noqa: S608 (our own columns)
_LOCK = text(f"SELECT {_COLUMNS} FROM pool.dead_letter WHERE id = :id FOR UPDATE")  # noqa: S608 (our own columns)
_MARK = text(
    """
    UPDATE pool.dead_letter SET replayed_at = clock_timestamp(), replayed_by = :by
     WHERE id = ANY(CAST(:ids AS uuid[])) RETURNING id, replayed_at
    """
)
# A copy of an event may lie as many days from it as the widest window has.
_STORED = text(
    """
    SELECT event_id, source, type, event_time, received_at, kafka_partition, kafka_offset, data FROM pool.usage_event
     WHERE tenant_id = :tenant AND identity = :identity
       AND day BETWEEN CAST(:day AS date) - 32 AND CAST(:day AS date) + 32
     ORDER BY kafka_partition, kafka_offset LIMIT 1
    """
)
_UNMATCHED = """
SELECT tenant_id, type, count AS counted, first_received_at, last_received_at FROM pool.unmatched_type
 WHERE {tenant} (tenant_id, type) > (CAST(:after_tenant AS uuid), :after_type) AND count > 0
 ORDER BY tenant_id, type LIMIT :limit
"""
_UNMATCHED_OF_TENANT = text(_UNMATCHED.format(tenant="tenant_id = :tenant AND"))
_UNMATCHED_OF_ALL = text(_UNMATCHED.format(tenant=""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which letters; what is None does not narrow. `start` (inclusive) and `to` are of the receipt."""

    tenant: UUID | None = None
    kind: str | None = None
    meter: str | None = None
    type: str | None = None
    start: datetime | None = None
    to: datetime | None = None
    replayed: bool | None = None

    @property
    def values(self) -> dict[str, Any]:
        return {name: value for name in _CLAUSES if (value := getattr(self, name)) is not None}


def _where(asked: Filter, *more: str) -> str:
    return " AND ".join([*(_CLAUSES[name] for name in asked.values), *more]) or "true"


async def page_of_letters(
    session: AsyncSession, asked: Filter, *, before: UUID, limit: int
) -> tuple[Sequence[Row[Any]], bool]:
    """Letters with an id below `before`, the newest first, and whether there are more.

    At most `limit`, and no more than begin within the first few MiB of payload: one may have half a MiB.
    """
    statement = f"""
        SELECT * FROM (
            SELECT *, count(*) OVER () AS found,
                   sum(octet_length(payload)) OVER (ORDER BY id DESC) - octet_length(payload) AS bytes_before
              FROM ({_letters_below(asked)}) AS looked_at
        ) AS page WHERE bytes_before < :bytes ORDER BY id DESC LIMIT :shown
        """  # noqa: S608 (clauses of our own)
    given = {**asked.values, "before": before, "limit": limit + 1, "shown": limit, "bytes": _PAGE_BYTES}
    rows = (await session.execute(text(statement), given)).all()
    return rows, bool(rows) and rows[0].found > len(rows)


async def lock_letters(session: AsyncSession, asked: Filter, *, before: UUID, limit: int) -> Sequence[Row[Any]]:
    """Letters with an id below `before`, the newest first, held until the caller's transaction ends."""
    statement = f"{_letters_below(asked)} FOR UPDATE"
    return (await session.execute(text(statement), {**asked.values, "before": before, "limit": limit})).all()


def _letters_below(asked: Filter) -> str:
    where = _where(asked, "id < CAST(:before AS uuid)")
    return f"SELECT {_COLUMNS} FROM pool.dead_letter WHERE {where} ORDER BY id DESC LIMIT :limit"  # noqa: S608


async def find_letter(session: AsyncSession, letter_id: UUID) -> Row[Any] | None:
    """The letter where the session may see it."""
    return await _one(session, _FIND, letter_id)


async def lock_letter(session: AsyncSession, letter_id: UUID) -> Row[Any] | None:
    """The letter, held until the caller's transaction ends."""
    return await _one(session, _LOCK, letter_id)


async def mark_replayed(session: AsyncSession, ids: Sequence[UUID], *, by: str) -> dict[UUID, datetime]:
    """When each was marked, in the caller's transaction."""
    return {row.id: row.replayed_at for row in await session.execute(_MARK, {"ids": list(ids), "by": by})}


async def count_letters(session: AsyncSession, asked: Filter) -> Sequence[Row[Any]]:
    """How many letters each tenant has of each kind, and of how many the replay is done."""
    statement = f"""
        SELECT tenant_id, kind, count(*) AS counted, count(replayed_at) AS replayed,
               min(received_at) AS first_received_at, max(received_at) AS last_received_at
          FROM pool.dead_letter WHERE {_where(asked)} GROUP BY tenant_id, kind ORDER BY tenant_id, kind
        """  # noqa: S608 (clauses of our own)
    return (await session.execute(text(statement), asked.values)).all()


async def find_stored(session: AsyncSession, tenant_id: UUID, identity: bytes, day: date) -> Row[Any] | None:
    """The event that is stored under an identity around a day; None where retention has taken it."""
    asked = {"tenant": tenant_id, "identity": UUID(bytes=identity), "day": day}
    return (await session.execute(_STORED, asked)).one_or_none()


async def find_unmatched(
    session: AsyncSession, tenant_id: UUID | None, *, after: tuple[UUID, str], limit: int
) -> Sequence[Row[Any]]:
    """Types that no meter knew when their events came, by tenant and type."""
    statement = _UNMATCHED_OF_ALL if tenant_id is None else _UNMATCHED_OF_TENANT
    parameters: dict[str, Any] = {"after_tenant": after[0], "after_type": after[1], "limit": limit}
    if tenant_id is not None:
        parameters["tenant"] = tenant_id
    return (await session.execute(statement, parameters)).all()


async def _one(session: AsyncSession, statement: TextClause, letter_id: UUID) -> Row[Any] | None:
    return (await session.execute(statement, {"id": letter_id})).one_or_none()
