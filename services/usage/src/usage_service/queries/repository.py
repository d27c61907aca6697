"""What queries read of rollups.

Every statement names the tenant: row security is the floor, the predicate gives the plan.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

Range = tuple[datetime, datetime]
_NEVER: Final = datetime(2000, 1, 1, tzinfo=UTC)

# One aggregate over the primary key's range; the starts of all windows are sorted, so a bisection finds their number.
_ROLLUPS = """
SELECT meter_id, bucket, {groups} AS groups, sum(count)::bigint AS counted, sum(sum) AS sum,
       min(minimum) AS minimum, max(maximum) AS maximum
  FROM (SELECT *, width_bucket(window_start, CAST(:starts AS timestamptz[])) AS bucket
          FROM usage_rollup
         WHERE tenant_id = :tenant AND meter_id = ANY(CAST(:meters AS uuid[]))
           AND window_start >= :first AND window_start < :last AND count > 0) AS placed
 WHERE window_start < (CAST(:ends AS timestamptz[]))[bucket]
 GROUP BY 1, 2, 3
"""
_ROLLUPS_BY_GROUP = text(_ROLLUPS.format(groups="groups"))
_ROLLUPS_TOTAL = text(_ROLLUPS.format(groups="''"))
# What both statements below read: the rollups in the windows, each with the number of its window.
_PLACED = """
SELECT *, width_bucket(window_start, CAST(:starts AS timestamptz[])) AS bucket
  FROM usage_rollup
 WHERE tenant_id = :tenant AND meter_id = ANY(CAST(:meters AS uuid[]))
   AND window_start >= :first AND window_start < :last AND latest IS NOT NULL
"""
_SAMPLE = "latest, latest_time, latest_received_at, latest_partition, latest_offset"
_LATEST = f"""
SELECT DISTINCT ON ({{distinct}}) bucket, {{groups}} AS groups, {_SAMPLE}
  FROM ({_PLACED}) AS placed
 WHERE window_start < (CAST(:ends AS timestamptz[]))[bucket]
 ORDER BY {{distinct}}, latest_time DESC, latest_received_at DESC, latest_partition DESC, latest_offset DESC
"""  # noqa: S608 (our own columns)
_LATEST_BY_GROUP = text(_LATEST.format(distinct="bucket, placed.groups", groups="placed.groups"))
_LATEST_TOTAL = text(_LATEST.format(distinct="bucket", groups="''"))
# The runs of a window's hours joined: the value between two of them is the last of the earlier one.
_RUNS = text(
    f"""
    SELECT bucket, groups, min(first_time) AS first_time,
           sum(integral + COALESCE(before * (extract(epoch FROM first_time - before_time) * 1000000), 0)) AS integral,
           {", ".join(f"(array_agg({each}) FILTER (WHERE final))[1] AS {each}" for each in _SAMPLE.split(", "))}
      FROM (SELECT *, lag(latest) OVER series AS before, lag(latest_time) OVER series AS before_time,
                   lead(latest_time) OVER series IS NULL AS final
              FROM ({_PLACED}) AS placed
             WHERE window_start < (CAST(:ends AS timestamptz[]))[bucket]
            WINDOW series AS (PARTITION BY bucket, groups ORDER BY window_start, first_time)) AS linked
     GROUP BY bucket, groups ORDER BY groups COLLATE "C", bucket
    """  # noqa: S608 (our own columns)
)
# From one group of a meter to the next by the index, and from each to its last hour: as many look-ups as groups,
# however long ago the hours are.
_CARRIED = text(
    f"""
    WITH RECURSIVE series AS (
        SELECT meter_id, (SELECT group_hash FROM usage_rollup AS rollup
                           WHERE rollup.tenant_id = :tenant AND rollup.meter_id = meter.meter_id
                             AND first_time IS NOT NULL
                           ORDER BY group_hash LIMIT 1) AS group_hash
          FROM unnest(CAST(:meters AS uuid[])) AS meter (meter_id)
         UNION ALL
        SELECT meter_id, (SELECT rollup.group_hash FROM usage_rollup AS rollup
                           WHERE rollup.tenant_id = :tenant AND rollup.meter_id = series.meter_id
                             AND rollup.group_hash > series.group_hash AND first_time IS NOT NULL
                           ORDER BY rollup.group_hash LIMIT 1)
          FROM series WHERE series.group_hash IS NOT NULL)
    SELECT last.*
      FROM series
     CROSS JOIN LATERAL (
           SELECT groups, {_SAMPLE} FROM usage_rollup AS rollup
            WHERE rollup.tenant_id = :tenant AND rollup.meter_id = series.meter_id
              AND rollup.group_hash = series.group_hash AND rollup.window_start < :before AND first_time IS NOT NULL
            ORDER BY window_start DESC LIMIT 1) AS last
    """  # noqa: S608 (our own columns)
)
# Where a version of the meter goes on before the one before it has ended: the last samples of those that began earlier.
_MIXED_HOURS = text(
    """
    SELECT DISTINCT window_start
      FROM (SELECT window_start, first_time, max(latest_time) OVER series AS before
              FROM usage_rollup
             WHERE tenant_id = :tenant AND meter_id = ANY(CAST(:meters AS uuid[]))
               AND window_start >= :first AND window_start < :last AND first_time IS NOT NULL
            WINDOW series AS (PARTITION BY window_start, groups ORDER BY first_time, meter_id
                              ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS run
     WHERE first_time <= before ORDER BY 1
    """
)
_GROUPS = text(
    """
    SELECT DISTINCT group_hash, groups FROM usage_rollup
     WHERE tenant_id = :tenant AND meter_id = ANY(CAST(:meters AS uuid[]))
       AND window_start >= :first AND window_start < :last
    """
)
_FULL_HOURS = text(
    """
    SELECT rollup.meter_id, rollup.window_start, array_agg(rollup.group_hash) AS own
      FROM unnest(CAST(:meters AS uuid[]), CAST(:overflows AS uuid[])) AS meter (meter_id, overflow)
      JOIN usage_rollup AS other ON other.meter_id = meter.meter_id AND other.group_hash = meter.overflow
      JOIN usage_rollup AS rollup
        ON rollup.tenant_id = other.tenant_id AND rollup.meter_id = other.meter_id
       AND rollup.window_start = other.window_start
     WHERE other.tenant_id = :tenant AND other.window_start = ANY(CAST(:hours AS timestamptz[]))
     GROUP BY 1, 2
    """
)
_UNIQUE = text(
    """
    WITH seen AS (
        SELECT (CAST(:numbers AS int[]))[bucket] AS number, label, value_hash
          FROM (SELECT *, width_bucket(window_start, CAST(:starts AS timestamptz[])) AS bucket
                  FROM usage_unique_value
                 WHERE tenant_id = :tenant AND meter_id = ANY(CAST(:meters AS uuid[]))
                   AND window_start >= :first AND window_start < :last) AS placed
          JOIN unnest(CAST(:groups AS uuid[]), CAST(:labels AS int[])) AS chosen (group_hash, label) USING (group_hash)
         WHERE window_start < (CAST(:ends AS timestamptz[]))[bucket]
         UNION ALL
        SELECT * FROM unnest(CAST(:edge_numbers AS int[]), CAST(:edge_labels AS int[]), CAST(:edge_values AS uuid[])))
    SELECT number, label, count(DISTINCT value_hash) AS uniques FROM seen GROUP BY 1, 2
    """
)
_ROWS_AT_ONCE: Final = 1_000
_WATERMARK = text("SELECT min(received_until) FROM system.partition_progress")


class UniqueEdges(NamedTuple):
    """Values in windows that are cut within an hour, as columns."""

    windows: list[int]
    labels: list[int]
    values: list[UUID]


def stream_rollups(
    session: AsyncSession, tenant_id: UUID, meters: Sequence[UUID], ranges: Sequence[Range], *, by_group: bool
) -> AsyncIterator[Row[Any]]:
    """Merged states by meter version, range (`bucket`, from 1) and group; ranges are sorted and do not overlap."""
    statement = _ROLLUPS_BY_GROUP if by_group else _ROLLUPS_TOTAL
    return streamed(session, statement, _spans(tenant_id, meters, ranges) if ranges else None)


def stream_latest(
    session: AsyncSession, tenant_id: UUID, meters: Sequence[UUID], ranges: Sequence[Range], *, by_group: bool
) -> AsyncIterator[Row[Any]]:
    """The sample that supersedes all others, by range and group, as `stream_rollups`."""
    statement = _LATEST_BY_GROUP if by_group else _LATEST_TOTAL
    return streamed(session, statement, _spans(tenant_id, meters, ranges) if ranges else None)


def stream_runs(
    session: AsyncSession, tenant_id: UUID, meters: Sequence[UUID], ranges: Sequence[Range]
) -> AsyncIterator[Row[Any]]:
    """The run of each range and group, as `stream_rollups`, one group after the other.

    In none of the hours may two versions of the meter mix.
    """
    return streamed(session, _RUNS, _spans(tenant_id, meters, ranges) if ranges else None)


async def find_carried(
    session: AsyncSession, tenant_id: UUID, meters: Sequence[UUID], before: datetime
) -> Sequence[Row[Any]]:
    """The last sample of each group and version of a time-weighted meter in the hours before one."""
    parameters = {"tenant": tenant_id, "meters": list(meters), "before": before}
    return (await session.execute(_CARRIED, parameters)).all()


async def find_mixed_hours(
    session: AsyncSession, tenant_id: UUID, meters: Sequence[UUID], ranges: Sequence[Range]
) -> Sequence[datetime]:
    """The hours in which samples of one version of a meter lie among those of another, in order."""
    return (await session.scalars(_MIXED_HOURS, _spans(tenant_id, meters, ranges))).all()


async def find_groups(
    session: AsyncSession, tenant_id: UUID, meters: Sequence[UUID], ranges: Sequence[Range]
) -> Sequence[Row[Any]]:
    """The groups, hash and text, that have a rollup between the first and the last of the ranges."""
    if not ranges:
        return []
    return (await session.execute(_GROUPS, _spans(tenant_id, meters, ranges))).all()


async def find_full_hours(
    session: AsyncSession, tenant_id: UUID, overflowing: Sequence[tuple[UUID, UUID]], hours: Sequence[datetime]
) -> Sequence[Row[Any]]:
    """Which of the hours have the overflow group of a meter, named with that group's hash, and all their groups."""
    parameters = {
        "tenant": tenant_id,
        "meters": [meter for meter, _ in overflowing],
        "overflows": [group for _, group in overflowing],
        "hours": list(hours),
    }
    return (await session.execute(_FULL_HOURS, parameters)).all()


def stream_uniques(
    session: AsyncSession,
    tenant_id: UUID,
    meters: Sequence[UUID],
    windows: Sequence[tuple[int, Range]],
    *,
    groups: Sequence[tuple[UUID, int]],
    edges: UniqueEdges,
) -> AsyncIterator[Row[Any]]:
    """How many different values each window (`number`) and label has: of its whole hours and its edges together.

    `windows` are whole hours by number of the window; `groups` gives the label of every group that is wanted.
    """
    ranges = [span for _, span in windows] or [(_NEVER, _NEVER)]
    asked = {
        **_spans(tenant_id, meters, ranges),
        "numbers": [number for number, _ in windows],
        "groups": [group for group, _ in groups],
        "labels": [label for _, label in groups],
        "edge_numbers": edges.windows,
        "edge_labels": edges.labels,
        "edge_values": edges.values,
    }
    return streamed(session, _UNIQUE, asked)


async def streamed(
    session: AsyncSession, statement: TextClause, parameters: dict[str, Any] | None
) -> AsyncIterator[Row[Any]]:
    """The rows; without parameters there is nothing to ask."""
    if parameters is None:
        return
    rows = await session.stream(statement, parameters)
    # One by one each row would wait for a switch of its own, which takes five times as long as the row.
    async for part in rows.partitions(_ROWS_AT_ONCE):
        for row in part:
            yield row


def _spans(tenant_id: UUID, meters: Sequence[UUID], ranges: Sequence[Range]) -> dict[str, Any]:
    return {
        "tenant": tenant_id,
        "meters": list(meters),
        "starts": [start for start, _ in ranges],
        "ends": [end for _, end in ranges],
        "first": ranges[0][0],
        "last": ranges[-1][1],
    }


async def find_watermark(session: AsyncSession) -> datetime | None:
    """The receipt time up to which all partitions are counted; None before the first is."""
    watermark: datetime | None = await session.scalar(_WATERMARK)
    return watermark
