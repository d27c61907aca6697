"""The end of rollups by age: the hours of a day become one row of the whole day, and later that row goes too.

Hours are merged into the day in the transaction that deletes them, so that at any time a day is in the one form or in
the other. It is done once nothing can change the day any more: PostgreSQL and the archive have lost its events.

A meter that a quota of the tenant is measured by keeps its hours: grants and periods begin on any hour, and their whole
past decides what is left of them. Of a series in time the last state stays for ever, because its value still holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_MIDNIGHT: Final = "CAST(:day AS date)::timestamp AT TIME ZONE 'UTC'"


def _of_the_day(table: str) -> str:
    return f"{table}.window_start >= {_MIDNIGHT} AND {table}.window_start < {_MIDNIGHT} + interval '1 day'"


_KEY: Final = "tenant_id, meter_id, group_hash"
_SAMPLE: Final = ("latest", "latest_time", "latest_received_at", "latest_partition", "latest_offset")
_NEWEST: Final = "latest_time DESC, latest_received_at DESC, latest_partition DESC, latest_offset DESC"
_SAMPLED: Final = "FILTER (WHERE latest IS NOT NULL)"
_STATE: Final = ("groups", "count", "sum", "minimum", "maximum", "integral", "first_time", *_SAMPLE)

_STAGE = text("CREATE TEMPORARY TABLE whole_rollup (LIKE pool.usage_rollup) ON COMMIT DROP")
# As queries join the runs of hours: the value between two of them is the last of the earlier one. An hour without a
# sample, as a correction leaves it, is between two others like one without a row.
_MERGE = text(
    f"""
    INSERT INTO whole_rollup ({_KEY}, window_start, whole_day, version, {", ".join(_STATE)})
    SELECT {_KEY}, {_MIDNIGHT}, true, max(version) + 1, min(groups),
           sum(count)::bigint, sum(sum), min(minimum), max(maximum),
           sum(integral + COALESCE(before * (extract(epoch FROM first_time - before_time) * 1000000), 0)),
           min(first_time),
           {", ".join(f"(array_agg({each} ORDER BY {_NEWEST}) {_SAMPLED})[1]" for each in _SAMPLE)}
      FROM (SELECT rollup.*, lag(latest) OVER series AS before, lag(latest_time) OVER series AS before_time
              FROM pool.usage_rollup AS rollup
             WHERE {_of_the_day("rollup")}
               AND NOT EXISTS (SELECT FROM pool.quota JOIN system.meter ON meter.slug = quota.meter
                                WHERE quota.tenant_id = rollup.tenant_id AND meter.id = rollup.meter_id)
            WINDOW series AS (PARTITION BY {_KEY}, latest IS NULL ORDER BY window_start)) AS linked
     GROUP BY {_KEY}
    """  # noqa: S608 (names of our own)
)
_MERGE_VALUES = text(
    f"""
    INSERT INTO pool.usage_unique_value (tenant_id, meter_id, window_start, group_hash, value_hash)
    SELECT DISTINCT seen.tenant_id, seen.meter_id, whole.window_start, seen.group_hash, seen.value_hash
      FROM pool.usage_unique_value AS seen JOIN whole_rollup AS whole USING ({_KEY})
     WHERE {_of_the_day("seen")}
    ON CONFLICT DO NOTHING
    """  # noqa: S608 (names of our own)
)
_DELETE_VALUES = text(
    f"""
    DELETE FROM pool.usage_unique_value AS seen USING whole_rollup AS whole
     WHERE (seen.tenant_id, seen.meter_id, seen.group_hash) = (whole.tenant_id, whole.meter_id, whole.group_hash)
       AND seen.window_start > whole.window_start AND {_of_the_day("seen")}
    """  # noqa: S608 (names of our own)
)
_COUNT_VALUES = text(
    """
    UPDATE whole_rollup AS whole SET uniques = counted.uniques
      FROM (SELECT seen.tenant_id, seen.meter_id, seen.group_hash, count(*) AS uniques
              FROM pool.usage_unique_value AS seen
              JOIN whole_rollup USING (tenant_id, meter_id, group_hash, window_start) GROUP BY 1, 2, 3) AS counted
     WHERE (whole.tenant_id, whole.meter_id, whole.group_hash)
         = (counted.tenant_id, counted.meter_id, counted.group_hash)
    """
)
_DELETE_HOURS = text(
    f"""
    DELETE FROM pool.usage_rollup AS rollup USING whole_rollup AS whole
     WHERE (rollup.tenant_id, rollup.meter_id, rollup.group_hash) = (whole.tenant_id, whole.meter_id, whole.group_hash)
       AND {_of_the_day("rollup")}
    """  # noqa: S608 (names of our own)
)
_WRITE = text("INSERT INTO pool.usage_rollup SELECT * FROM whole_rollup")
_END_DAYS = text(
    f"""
    WITH gone AS (
        DELETE FROM pool.usage_rollup AS rollup
         WHERE {_of_the_day("rollup")} AND whole_day
           AND (first_time IS NULL OR EXISTS (
                SELECT FROM pool.usage_rollup AS later
                 WHERE later.tenant_id = rollup.tenant_id AND later.meter_id = rollup.meter_id
                   AND later.group_hash = rollup.group_hash AND later.window_start > rollup.window_start
                   AND later.first_time IS NOT NULL))
        RETURNING tenant_id, meter_id, window_start, group_hash),
    values_gone AS (
        DELETE FROM pool.usage_unique_value AS seen USING gone
         WHERE (seen.tenant_id, seen.meter_id, seen.window_start, seen.group_hash)
             = (gone.tenant_id, gone.meter_id, gone.window_start, gone.group_hash)),
    noted AS (
        INSERT INTO pool.ended_rollup AS ended (tenant_id, meter_id, until)
        SELECT DISTINCT tenant_id, meter_id, CAST(:day AS date) + 1 FROM gone ORDER BY 1, 2
        ON CONFLICT (tenant_id, meter_id) DO UPDATE SET until = GREATEST(ended.until, excluded.until))
    SELECT count(*) FROM gone
    """  # noqa: S608 (names of our own)
)


class Ending(StrEnum):
    """What of a day's rollups ends; the value names the column that says when it did."""

    HOURS = "hours_ended_at"
    DAYS = "days_ended_at"


_FOREVER_AFTER: Final = {
    # No event can come, be corrected or be counted by a backfill any more.
    Ending.HOURS: "NOT EXISTS (SELECT FROM system.archive_object AS object WHERE object.day = usage_day.day)",
    Ending.DAYS: "hours_ended_at IS NOT NULL",
}
_DUE: Final = """
SELECT day FROM system.usage_day
 WHERE dropped_at IS NOT NULL AND {ending} IS NULL AND {after}
   AND GREATEST((day + 1)::timestamp AT TIME ZONE 'UTC', newest_received_at) <= :until
 ORDER BY day LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class EndedDay:
    """A day whose rollups ended, and how many rows of them were deleted."""

    day: date
    rows: int


async def due_days(connection: AsyncConnection, ending: Ending, until: datetime, *, limit: int) -> list[date]:
    """The days whose hours, or whole days, end if everything that was received until then is old enough."""
    statement = text(_DUE.format(ending=ending.value, after=_FOREVER_AFTER[ending]))
    return list((await connection.scalars(statement, {"until": until, "limit": limit})).all())


async def end_next(connection: AsyncConnection, ending: Ending, until: datetime, now: datetime) -> EndedDay | None:
    """Ends what is due of the oldest day that nobody works on; None where there is none. The caller commits."""
    statement = text(_DUE.format(ending=ending.value, after=_FOREVER_AFTER[ending]) + " FOR UPDATE SKIP LOCKED")
    day = await connection.scalar(statement, {"until": until, "limit": 1})
    if day is None:
        return None
    rows = await (_end_hours if ending is Ending.HOURS else _end_days)(connection, {"day": day})
    ended = text(f"UPDATE system.usage_day SET {ending.value} = :now WHERE day = :day")  # noqa: S608 (our own column)
    await connection.execute(ended, {"day": day, "now": now})
    return EndedDay(day, rows)


async def _end_hours(connection: AsyncConnection, key: dict[str, Any]) -> int:
    await connection.execute(_STAGE)
    await connection.execute(_MERGE, key)
    await connection.execute(_MERGE_VALUES, key)
    await connection.execute(_DELETE_VALUES, key)
    await connection.execute(_COUNT_VALUES)
    deleted = (await connection.execute(_DELETE_HOURS, key)).rowcount
    await connection.execute(_WRITE)
    return deleted


async def _end_days(connection: AsyncConnection, key: dict[str, Any]) -> int:
    return int(await connection.scalar(_END_DAYS, key) or 0)
