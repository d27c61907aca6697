"""Rollups whose states the database cannot add: locked, merged with what a batch gathered, and written back.

Of `latest` and `time_weighted` the row is the state. Rows are locked in the order of their keys by the statement that
reads them, so that two workers that count for one tenant merge one after the other, and neither misses the other's
samples: what a recount does not see yet is merged by the worker that waits for the row.

Of `unique_count` the values are rows of their own, which the key keeps apart; the rollup has their number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
from prometheus_client import Counter

from usage_service.domain.instants import instant, microseconds
from usage_service.domain.rollups import At, LatestState, Sample, SeriesState, State, UniqueState
from usage_service.domain.series import Run, joined, run_of
from usage_service.metering.counting import Increments, RollupKey
from usage_service.metering.recounting import recount
from usage_service.metering.staging import UNIQUE_COLUMNS, copy_into, unique_bytes

RECOUNTED = Counter("usage_rollups_recounted_total", "Rollups made anew from raw events: samples came out of order")

_KEY = "tenant_id, meter_id, window_start, group_hash"
# A no-op update is what makes the statement lock a row that is there.
_LOCK = f"""
INSERT INTO pool.usage_rollup AS rollup ({_KEY}, version, count, groups)
SELECT {_KEY}, 0, 0, groups
  FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::uuid[], $5::text[]) AS key ({_KEY}, groups)
 ORDER BY {_KEY}
ON CONFLICT ({_KEY}) DO UPDATE SET version = rollup.version
RETURNING {_KEY}, count, uniques, integral, first_time,
          latest_time, latest_received_at, latest_partition, latest_offset, latest
"""  # noqa: S608 (names of our own)
_WRITE = f"""
UPDATE pool.usage_rollup AS rollup SET
       version = rollup.version + 1,
       count = merged.count,
       uniques = merged.uniques,
       integral = merged.integral::numeric,
       first_time = merged.first_time,
       latest_time = merged.latest_time,
       latest_received_at = merged.latest_received_at,
       latest_partition = merged.latest_partition,
       latest_offset = merged.latest_offset,
       latest = merged.latest::numeric
  FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::uuid[], $5::bigint[], $6::bigint[], $7::text[],
              $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::int[], $12::bigint[], $13::text[])
       AS merged ({_KEY}, count, uniques, integral, first_time, latest_time, latest_received_at, latest_partition,
                  latest_offset, latest)
 WHERE (rollup.tenant_id, rollup.meter_id, rollup.window_start, rollup.group_hash)
     = (merged.tenant_id, merged.meter_id, merged.window_start, merged.group_hash)
"""  # noqa: S608 (names of our own)
_ADD_VALUES = f"""
WITH added AS (
    INSERT INTO pool.usage_unique_value ({", ".join(UNIQUE_COLUMNS)})
    SELECT {", ".join(UNIQUE_COLUMNS)} FROM staged_unique_value ORDER BY {", ".join(UNIQUE_COLUMNS)}
    ON CONFLICT DO NOTHING RETURNING {_KEY})
SELECT {_KEY}, count(*) AS uniques FROM added GROUP BY {_KEY}
"""  # noqa: S608 (names of our own)


@dataclass(slots=True)
class Kept:
    """What a row of `usage_rollup` says of a gathered state."""

    count: int = 0
    uniques: int | None = None
    latest: Sample | None = None
    run: Run | None = None


async def write_gathered(connection: asyncpg.Connection, increments: Increments, *, clear: bool) -> list[RollupKey]:
    """Merges what was gathered into its rollups, in the caller's transaction; returns their keys in order.

    The raw events of the batch are stored. `clear` says that the stage was used in this transaction before.
    """
    keys = sorted(increments.gathered)
    if not keys:
        return keys
    added = await _add_values(connection, increments.gathered, clear=clear)
    kept = await _lock(connection, keys, increments.groups)
    again: list[RollupKey] = []
    for key in keys:
        state, row = increments.gathered[key], kept[key]
        row.count += state.count
        match state:
            case UniqueState():
                row.uniques = (row.uniques or 0) + added.get(key, 0)
            case LatestState():
                row.latest = _later(row.latest, state.latest)
            case SeriesState():
                row.run = joined(row.run, state.samples)
                if row.run is None:
                    again.append(key)
    if again:
        RECOUNTED.inc(len(again))
        meters = {key: increments.gathering[key[1]] for key in again}
        for key, state in (await recount(connection, meters)).items():
            assert isinstance(state, SeriesState)
            kept[key] = Kept(count=state.count, run=run_of(state.samples))
    await _write(connection, keys, kept)
    return keys


def _later(kept: Sample | None, new: Sample | None) -> Sample | None:
    state = LatestState(latest=kept)
    state.merge(LatestState(latest=new))
    return state.latest


async def _add_values(
    connection: asyncpg.Connection, gathered: Mapping[RollupKey, State], *, clear: bool
) -> dict[RollupKey, int]:
    """How many values are new to each rollup; they are stored."""
    rows = [
        unique_bytes(key, value)
        for key, state in gathered.items()
        if isinstance(state, UniqueState)
        for value in state.values
    ]
    if not rows:
        return {}
    await copy_into(connection, "staged_unique_value", UNIQUE_COLUMNS, rows, clear=clear)
    return {_key(row): row["uniques"] for row in await connection.fetch(_ADD_VALUES)}


async def _lock(
    connection: asyncpg.Connection, keys: Collection[RollupKey], groups: Mapping[bytes, str]
) -> dict[RollupKey, Kept]:
    found = await connection.fetch(_LOCK, *key_columns(keys), [groups[key[3]] for key in keys])
    return {_key(row): _kept(row) for row in found}


def _kept(row: asyncpg.Record) -> Kept:
    kept = Kept(count=row["count"], uniques=row["uniques"])
    if row["latest"] is not None:
        at = At(
            microseconds(row["latest_time"]),
            microseconds(row["latest_received_at"]),
            row["latest_partition"],
            row["latest_offset"],
        )
        sample = Sample(at, row["latest"])
        if row["first_time"] is None:
            kept.latest = sample
        else:
            kept.run = Run(microseconds(row["first_time"]), sample, row["integral"])
    return kept


async def _write(connection: asyncpg.Connection, keys: Collection[RollupKey], kept: Mapping[RollupKey, Kept]) -> None:
    rows = [kept[key] for key in keys]
    latest = [row.run.latest if row.run is not None else row.latest for row in rows]
    await connection.execute(
        _WRITE,
        *key_columns(keys),
        [row.count for row in rows],
        [row.uniques for row in rows],
        [None if row.run is None else str(row.run.integral) for row in rows],
        [None if row.run is None else instant(row.run.first) for row in rows],
        [None if sample is None else instant(sample.at.time) for sample in latest],
        [None if sample is None else instant(sample.at.received) for sample in latest],
        [None if sample is None else sample.at.partition for sample in latest],
        [None if sample is None else sample.at.offset for sample in latest],
        [None if sample is None else str(sample.value) for sample in latest],
    )


def key_columns(keys: Collection[RollupKey]) -> tuple[list[UUID], list[UUID], list[datetime], list[UUID]]:
    """Tenants, meters, windows and groups, as statements take them."""
    return (
        [UUID(bytes=tenant) for tenant, _, _, _ in keys],
        [UUID(bytes=meter) for _, meter, _, _ in keys],
        [instant(opening) for _, _, opening, _ in keys],
        [UUID(bytes=group) for _, _, _, group in keys],
    )


def _key(row: asyncpg.Record) -> RollupKey:
    return (row["tenant_id"].bytes, row["meter_id"].bytes, microseconds(row["window_start"]), row["group_hash"].bytes)
