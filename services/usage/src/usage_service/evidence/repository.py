"""What evidence is read from. Every statement names the tenant: row security is the floor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

_ROWS_AT_ONCE: Final = 1_000  # a row that is waited for by itself costs four times as much
# Cancelled events too: at an earlier cut they counted.
_EVENTS: Final = text(
    """
    SELECT identity, event_time, received_at, kafka_partition, kafka_offset, catalogue_version, data
      FROM usage_event
     WHERE tenant_id = :tenant AND type = :type AND day BETWEEN :first_day AND :last_day
       AND event_time >= :first AND event_time < :last
    """
)
_CORRECTIONS: Final = text(
    """
    SELECT id, identity, day, source, event_id, replacement_source, replacement_id, reason, received_at,
           kafka_partition, kafka_offset
      FROM correction
     WHERE tenant_id = :tenant AND day BETWEEN :first_day AND :last_day
     ORDER BY received_at, id
    """
)
# Parts of one day expire one by one: from the first on, nothing is sure of it.
_EXPIRED: Final = text(
    """
    SELECT day FROM system.usage_day
     WHERE day BETWEEN :first_day AND :last_day AND dropped_at IS NOT NULL AND newest_received_at IS NOT NULL
       AND (day < :kept_from OR NOT EXISTS (SELECT FROM system.archive_object AS object
                                             WHERE object.day = usage_day.day AND object.released_at IS NOT NULL))
     ORDER BY day
    """
)


async def stream_events(
    session: AsyncSession, tenant_id: UUID, event_type: str, span: tuple[datetime, datetime], days: tuple[date, date]
) -> AsyncIterator[Row[Any]]:
    """The tenant's events of a type in [first, last) that PostgreSQL has, in no order."""
    asked = {
        "tenant": tenant_id,
        "type": event_type,
        "first": span[0],
        "last": span[1],
        "first_day": days[0],
        "last_day": days[1],
    }
    rows = await session.stream(_EVENTS, asked)
    async for part in rows.partitions(_ROWS_AT_ONCE):
        for row in part:
            yield row


async def find_corrections(session: AsyncSession, tenant_id: UUID, days: tuple[date, date]) -> Sequence[Row[Any]]:
    """What has cancelled an event of these days, the earliest received first."""
    asked = {"tenant": tenant_id, "first_day": days[0], "last_day": days[1]}
    return (await session.execute(_CORRECTIONS, asked)).all()


async def expired_days(session: AsyncSession, days: tuple[date, date], kept_from: date) -> Sequence[date]:
    """Days of which events may be gone from the archive too, which keeps what is not older than `kept_from`."""
    asked = {"first_day": days[0], "last_day": days[1], "kept_from": kept_from}
    return (await session.scalars(_EXPIRED, asked)).all()
