"""Publishing again what the database holds, for a topic that has lost records: by pages, through the usual queue."""

from __future__ import annotations

from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from usage_service.domain.instants import instant, microseconds
from usage_service.driver import driver_of
from usage_service.metering.rollups import queue_changes

_PAGE: Final = 5_000
_MOST_WAITING: Final = 100
"""Queued changes beyond which a page waits: what is counted now is to be published before what was long ago."""

# The day's row of hours that have ended was never published: readers keep the hours.
_NEXT = text(
    """
    SELECT tenant_id, meter_id, window_start, group_hash FROM pool.usage_rollup
     WHERE (CAST(:tenant AS uuid) IS NULL OR tenant_id = :tenant)
       AND (tenant_id, meter_id, window_start, group_hash)
           > (CAST(:after_tenant AS uuid), CAST(:after_meter AS uuid), CAST(:after_window AS timestamptz),
              CAST(:after_group AS uuid))
       AND NOT whole_day
     ORDER BY tenant_id, meter_id, window_start, group_hash LIMIT :page
    """
)
_WAITING = text("SELECT count(*) FROM (SELECT FROM system.rollup_change LIMIT :most + 1) AS waiting")


class Place(NamedTuple):
    """The key of a rollup, with its window in microseconds as rollups have it."""

    tenant: UUID
    meter: UUID
    window: int
    group: UUID


BEGINNING: Final = Place(UUID(int=0), UUID(int=0), 0, UUID(int=0))


async def queue_page(connection: AsyncConnection, tenant: UUID | None, after: Place) -> tuple[int, Place | None]:
    """Queues the rollups behind a place; how many, and where the next page begins, if there is one.

    None, and the same place, while many changes wait to be published. The caller commits. Readers know the records by
    their versions, so any page may be repeated.
    """
    if (await connection.scalar(_WAITING, {"most": _MOST_WAITING}) or 0) > _MOST_WAITING:
        return 0, after
    asked = {
        "tenant": tenant,
        "after_tenant": after.tenant,
        "after_meter": after.meter,
        "after_window": instant(after.window),
        "after_group": after.group,
        "page": _PAGE,
    }
    rows = (await connection.execute(_NEXT, asked)).all()
    if not rows:
        return 0, None
    keys = [(owner.bytes, meter.bytes, microseconds(window), group.bytes) for owner, meter, window, group in rows]
    await queue_changes(await driver_of(connection), keys)
    last = rows[-1]
    end = Place(last.tenant_id, last.meter_id, microseconds(last.window_start), last.group_hash)
    return len(rows), end if len(rows) == _PAGE else None
