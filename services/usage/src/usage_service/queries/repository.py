"""What queries read. Every statement names the tenant: row security is the floor, the predicate gives the plan."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

Range = tuple[datetime, datetime]

# One aggregate over the primary key's range; the starts of all windows are sorted, so a bisection finds their number.
_ROLLUPS = """
SELECT meter_id, bucket, {groups} AS groups, sum(count)::bigint AS counted, sum(sum) AS sum,
       min(minimum) AS minimum, max(maximum) AS maximum
  FROM (SELECT *, width_bucket(window_start, CAST(:starts AS timestamptz[])) AS bucket
          FROM usage_rollup
         WHERE tenant_id = :tenant AND meter_id = ANY(CAST(:meters AS uuid[]))
           AND window_start >= :first AND window_start < :last) AS placed
 WHERE window_start < (CAST(:ends AS timestamptz[]))[bucket]
 GROUP BY 1, 2, 3
"""
_ROLLUPS_BY_GROUP = text(_ROLLUPS.format(groups="groups"))
_ROLLUPS_TOTAL = text(_ROLLUPS.format(groups="''"))
_RAW = text(
    """
    SELECT event.event_time, event.catalogue_version, event.data
      FROM usage_event AS event
      JOIN unnest(CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[])) AS edge (opening, closing)
        ON event.event_time >= edge.opening AND event.event_time < edge.closing
     WHERE event.tenant_id = :tenant AND event.type = :type AND event.day BETWEEN :first_day AND :last_day
    """
)
_EVENTS = text(
    """
    SELECT identity, event_id, source, type, event_time, received_at, kafka_partition, kafka_offset, data
      FROM usage_event
     WHERE tenant_id = :tenant AND day BETWEEN :first_day AND :last_day
       AND event_time >= :first AND event_time < :last
       AND (CAST(:type AS text) IS NULL OR type = :type)
       AND (event_time, identity) > (:after_time, CAST(:after_identity AS uuid))
     ORDER BY event_time, identity LIMIT :limit
    """
)
_DEAD_LETTERS = """
SELECT tenant_id, id, kind, reason, meter_id, type, source, event_id, kafka_partition, kafka_offset, received_at,
       payload, created_at
  FROM pool.dead_letter
 WHERE {tenant} id < CAST(:before AS uuid) AND (CAST(:kind AS text) IS NULL OR kind = :kind)
 ORDER BY id DESC LIMIT :limit
"""
_DEAD_LETTERS_OF_TENANT = text(_DEAD_LETTERS.format(tenant="tenant_id = :tenant AND"))
_DEAD_LETTERS_OF_ALL = text(_DEAD_LETTERS.format(tenant=""))
_UNMATCHED = """
SELECT tenant_id, type, count AS counted, first_received_at, last_received_at FROM pool.unmatched_type
 WHERE {tenant} (tenant_id, type) > (CAST(:after_tenant AS uuid), :after_type)
 ORDER BY tenant_id, type LIMIT :limit
"""
_UNMATCHED_OF_TENANT = text(_UNMATCHED.format(tenant="tenant_id = :tenant AND"))
_UNMATCHED_OF_ALL = text(_UNMATCHED.format(tenant=""))
_WATERMARK = text("SELECT min(received_until) FROM system.partition_progress")


async def find_rollups(
    session: AsyncSession, tenant_id: UUID, meters: Sequence[UUID], ranges: Sequence[Range], *, by_group: bool
) -> Sequence[Row[Any]]:
    """Merged states by meter version, range (`bucket`, from 1) and group; ranges are sorted and do not overlap."""
    if not ranges:
        return []
    statement = _ROLLUPS_BY_GROUP if by_group else _ROLLUPS_TOTAL
    found = await session.execute(
        statement,
        {
            "tenant": tenant_id,
            "meters": list(meters),
            "starts": [start for start, _ in ranges],
            "ends": [end for _, end in ranges],
            "first": ranges[0][0],
            "last": ranges[-1][1],
        },
    )
    return found.all()


async def stream_raw(
    session: AsyncSession, tenant_id: UUID, event_type: str, ranges: Sequence[Range]
) -> AsyncIterator[Row[Any]]:
    """The raw events of a type inside the ranges, in no order."""
    if not ranges:
        return
    rows = await session.stream(
        _RAW,
        {
            "tenant": tenant_id,
            "type": event_type,
            "starts": [start for start, _ in ranges],
            "ends": [end for _, end in ranges],
            "first_day": _utc_day(ranges[0][0]),
            "last_day": _utc_day(ranges[-1][1]),
        },
    )
    async for row in rows:
        yield row


async def find_events(
    session: AsyncSession,
    tenant_id: UUID,
    span: Range,
    *,
    event_type: str | None,
    after: tuple[datetime, UUID],
    limit: int,
) -> Sequence[Row[Any]]:
    """Raw events by (time, identity), after a place in that order."""
    first, last = span
    found = await session.execute(
        _EVENTS,
        {
            "tenant": tenant_id,
            "first_day": _utc_day(first),
            "last_day": _utc_day(last),
            "first": first,
            "last": last,
            "type": event_type,
            "after_time": after[0],
            "after_identity": after[1],
            "limit": limit,
        },
    )
    return found.all()


async def find_dead_letters(
    session: AsyncSession, tenant_id: UUID | None, *, kind: str | None, before: UUID, limit: int
) -> Sequence[Row[Any]]:
    """Newest first; of all tenants, and of none, where no tenant is given and the session may see them."""
    statement = _DEAD_LETTERS_OF_ALL if tenant_id is None else _DEAD_LETTERS_OF_TENANT
    parameters = {"kind": kind, "before": before, "limit": limit}
    if tenant_id is not None:
        parameters["tenant"] = tenant_id
    return (await session.execute(statement, parameters)).all()


async def find_unmatched(
    session: AsyncSession, tenant_id: UUID | None, *, after: tuple[UUID, str], limit: int
) -> Sequence[Row[Any]]:
    """Types that no meter knew when their events came, by tenant and type."""
    statement = _UNMATCHED_OF_ALL if tenant_id is None else _UNMATCHED_OF_TENANT
    parameters: dict[str, Any] = {"after_tenant": after[0], "after_type": after[1], "limit": limit}
    if tenant_id is not None:
        parameters["tenant"] = tenant_id
    return (await session.execute(statement, parameters)).all()


async def find_watermark(session: AsyncSession) -> datetime | None:
    """The receipt time up to which all partitions are counted; None before the first is."""
    watermark: datetime | None = await session.scalar(_WATERMARK)
    return watermark


def _utc_day(moment: datetime) -> date:
    """The day whose partition holds an instant, whatever offset it was asked with."""
    return moment.astimezone(UTC).date()
