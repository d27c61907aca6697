"""Rows of erasures. Statements run as the system role, and name the tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from usage_service.domain.meters import Meter
from usage_service.meters.repository import meter_of
from usage_service.retention.days import STORED_DAYS

_REPORT: Final = """
SELECT erasure.*, COALESCE(jsonb_array_length(days), 0) AS days_left,
       (SELECT jsonb_object_agg(place, rows) FROM pool.erasure_place AS found
         WHERE found.tenant_id = erasure.tenant_id AND found.erasure_id = erasure.id) AS places
  FROM pool.erasure AS erasure
 WHERE (CAST(:tenant AS uuid) IS NULL OR tenant_id = :tenant)
"""
_INSERT = text(
    """
    INSERT INTO pool.erasure (tenant_id, id, step, asked_by, asked_at, salt, hashes, paths, attributes, telling_meters,
                              pseudonyms, look_at)
    VALUES (:tenant, :id, 'waiting', :asked_by, clock_timestamp(), :salt, :hashes, :paths, :attributes, :telling_meters,
            :pseudonyms, clock_timestamp())
    """
).bindparams(
    bindparam("hashes", type_=JSONB),
    bindparam("paths", type_=JSONB(none_as_null=True)),
    bindparam("telling_meters", type_=JSONB),
    bindparam("pseudonyms", type_=JSONB),
)
_GET = text(f"{_REPORT} AND id = :id")
_LIST = text(f"{_REPORT} AND id < :before ORDER BY id DESC LIMIT :limit")
_CLAIM = text(
    """
    SELECT tenant_id, id, step, asked_at, paths, attributes, pseudonyms, days, cursor FROM pool.erasure
     WHERE look_at <= :now ORDER BY look_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
    """
)
_FOUND = text(
    """
    INSERT INTO pool.erasure_place AS found (tenant_id, erasure_id, place, rows)
    SELECT CAST(:tenant AS uuid), CAST(:id AS uuid), *
      FROM unnest(CAST(:places AS text[]), CAST(:rows AS bigint[])) AS each (place, rows) ORDER BY place
    ON CONFLICT (tenant_id, erasure_id, place) DO UPDATE SET rows = found.rows + excluded.rows
    """
)


def _update(assignments: str) -> TextClause:
    return text(f"UPDATE pool.erasure SET {assignments} WHERE tenant_id = :tenant AND id = :id")  # noqa: S608 (our own)


_PLAN = _update("step = :step, cursor = NULL, days = :days, days_planned = :planned, problem = NULL").bindparams(
    bindparam("days", type_=JSONB)
)
_DAY_DONE = _update("days = days - CAST(:day AS text), problem = NULL")
_STEP = _update("step = :step, cursor = NULL, problem = NULL")
_CURSOR = _update("cursor = :cursor, problem = NULL")
_DONE = _update(
    "step = 'done', cursor = NULL, pseudonyms = NULL, look_at = NULL, problem = NULL, finished_at = clock_timestamp()"
)
_LATER = _update("look_at = :look_at, problem = :problem")
_OPEN = text("SELECT count(*) FROM pool.erasure WHERE look_at IS NOT NULL")
_METERS = text("SELECT * FROM system.meter ORDER BY slug, version")
# What was received before the erasure was asked for is counted once every partition is counted up to then.
_COUNTED = text(
    """
    SELECT COALESCE((SELECT min(received_until) FROM system.partition_progress) >= :asked_at, false)
           AND NOT EXISTS (SELECT FROM system.parked_record WHERE tenant_id = :tenant)
    """
)
_BACKFILLED = text(
    "SELECT EXISTS (SELECT FROM system.meter_backfill WHERE finished_at IS NULL OR finished_at >= :since)"
)
_DAYS = text(
    f"""
    {STORED_DAYS} UNION
    SELECT (window_start AT TIME ZONE 'UTC')::date FROM pool.usage_rollup WHERE tenant_id = :tenant ORDER BY 1
    """  # noqa: S608 (a statement of our own)
)


class Claimed:
    """An erasure whose turn it is: its row is locked until the caller's transaction ends."""

    def __init__(self, row: Row[Any]) -> None:
        self.tenant_id: UUID = row.tenant_id
        self.id: UUID = row.id
        self.step: str = row.step
        self.asked_at: datetime = row.asked_at
        self.paths: list[str] | None = row.paths
        self.attributes: bool = row.attributes
        self.pseudonyms: dict[str, str] = row.pseudonyms
        self.days = [date.fromisoformat(day) for day in row.days or ()]
        self.cursor: UUID | None = row.cursor

    @property
    def key(self) -> dict[str, UUID]:
        """As statements name it."""
        return {"tenant": self.tenant_id, "id": self.id}


async def insert_erasure(session: AsyncSession, **values: Any) -> None:
    """The caller commits."""
    await session.execute(_INSERT, values)


async def find_erasure(session: AsyncSession, tenant_id: UUID | None, erasure_id: UUID) -> Row[Any] | None:
    """One of a tenant, or of all."""
    return (await session.execute(_GET, {"tenant": tenant_id, "id": erasure_id})).one_or_none()


async def find_erasures(
    session: AsyncSession, tenant_id: UUID | None, *, before: UUID, limit: int
) -> Sequence[Row[Any]]:
    """Those with an id below `before`, the newest first."""
    return (await session.execute(_LIST, {"tenant": tenant_id, "before": before, "limit": limit})).all()


async def find_meters(connection: AsyncConnection | AsyncSession) -> list[Meter]:
    """All versions of all meters."""
    return [meter_of(row) for row in await connection.execute(_METERS)]


async def claim_erasure(connection: AsyncConnection, now: datetime) -> Claimed | None:
    """The one that has waited longest, locked until the caller's transaction ends; None where none is due."""
    row = (await connection.execute(_CLAIM, {"now": now})).one_or_none()
    return None if row is None else Claimed(row)


async def count_open(connection: AsyncConnection) -> int:
    """How many are asked for and not done."""
    return int(await connection.scalar(_OPEN) or 0)


async def is_counted(connection: AsyncConnection, erasure: Claimed) -> bool:
    """Whether everything that was received before the erasure was asked for is in the tables."""
    return bool(await connection.scalar(_COUNTED, {"asked_at": erasure.asked_at, "tenant": erasure.tenant_id}))


async def was_backfilled(connection: AsyncConnection, erasure: Claimed) -> bool:
    """Whether a backfill may have read events before they were erased, and written what it counted after it."""
    return bool(await connection.scalar(_BACKFILLED, {"since": erasure.asked_at}))


async def find_days(connection: AsyncConnection, tenant_id: UUID) -> list[date]:
    """The days of raw events that PostgreSQL has, and those of the tenant's rollups, in order."""
    return list((await connection.scalars(_DAYS, {"tenant": tenant_id})).all())


async def plan_days(connection: AsyncConnection, erasure: Claimed, step: str, days: Sequence[date]) -> None:
    """The caller commits, as for everything below."""
    await connection.execute(
        _PLAN, {**erasure.key, "step": step, "days": [str(day) for day in days], "planned": len(days)}
    )


async def add_found(connection: AsyncConnection, erasure: Claimed, found: Mapping[str, int]) -> None:
    """Adds to the counts of the report."""
    found = {place: rows for place, rows in found.items() if rows}
    if found:
        await connection.execute(_FOUND, {**erasure.key, "places": list(found), "rows": list(found.values())})


async def set_day_done(connection: AsyncConnection, erasure: Claimed, day: date) -> None:
    """One day less is left."""
    await connection.execute(_DAY_DONE, {**erasure.key, "day": str(day)})


async def set_step(connection: AsyncConnection, erasure: Claimed, step: str) -> None:
    """The next step, from its beginning."""
    await connection.execute(_STEP, {**erasure.key, "step": step})


async def set_cursor(connection: AsyncConnection, erasure: Claimed, cursor: UUID) -> None:
    """What came last in the step that is under way."""
    await connection.execute(_CURSOR, {**erasure.key, "cursor": cursor})


async def set_done(connection: AsyncConnection, erasure: Claimed) -> None:
    """Nothing is left to do, and the values are forgotten."""
    await connection.execute(_DONE, erasure.key)


async def look_later(connection: AsyncConnection, erasure: Claimed, at: datetime, problem: str | None) -> None:
    """Lets others go first."""
    await connection.execute(_LATER, {**erasure.key, "look_at": at, "problem": problem})
