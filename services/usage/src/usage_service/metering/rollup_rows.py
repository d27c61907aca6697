"""Rows of `usage_rollup` as states: locked and read in the order of their keys, and written back as a whole.

Of all aggregations the row is the state, but for `unique_count`, whose values are rows of their own; the rollup has
their number. Rows are locked in key order by the statement that reads them, so that those who change the same rollups
do it one after the other, and none misses what another has changed. What a recount does not see yet is merged by the
worker that waits for the row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from usage_service.domain.instants import instant, microseconds
from usage_service.domain.quantities import Quantity
from usage_service.domain.rollups import At, LatestState, RollupState, Sample, State, UniqueState
from usage_service.domain.series import Run, RunState
from usage_service.metering.counting import RollupKey
from usage_service.metering.staging import STAGES, UNIQUE_COLUMNS, copy_into, unique_bytes

_KEY = "tenant_id, meter_id, window_start, group_hash"
_KEYS = "$1::uuid[], $2::uuid[], $3::timestamptz[], $4::uuid[]"
# A no-op update is what makes the statement lock a row that is there.
_LOCK = f"""
INSERT INTO pool.usage_rollup AS rollup ({_KEY}, version, count, groups)
SELECT {_KEY}, 0, 0, groups FROM unnest({_KEYS}, $5::text[]) AS key ({_KEY}, groups)
 ORDER BY {_KEY}
ON CONFLICT ({_KEY}) DO UPDATE SET version = rollup.version
RETURNING {_KEY}, count, sum, minimum, maximum, uniques, integral, first_time,
          latest_time, latest_received_at, latest_partition, latest_offset, latest
"""  # noqa: S608 (names of our own)
_WRITE = f"""
UPDATE pool.usage_rollup AS rollup SET
       version = rollup.version + 1,
       count = new.count,
       sum = new.sum::numeric,
       minimum = new.minimum::numeric,
       maximum = new.maximum::numeric,
       uniques = new.uniques,
       integral = new.integral::numeric,
       first_time = new.first_time,
       latest_time = new.latest_time,
       latest_received_at = new.latest_received_at,
       latest_partition = new.latest_partition,
       latest_offset = new.latest_offset,
       latest = new.latest::numeric
  FROM unnest({_KEYS}, $5::bigint[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::text[],
              $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::int[], $15::bigint[], $16::text[])
       AS new ({_KEY}, count, sum, minimum, maximum, uniques, integral, first_time, latest_time, latest_received_at,
               latest_partition, latest_offset, latest)
 WHERE (rollup.tenant_id, rollup.meter_id, rollup.window_start, rollup.group_hash)
     = (new.tenant_id, new.meter_id, new.window_start, new.group_hash)
"""  # noqa: S608 (names of our own)
_ADD_VALUES = f"""
WITH added AS (
    INSERT INTO pool.usage_unique_value ({", ".join(UNIQUE_COLUMNS)})
    SELECT {", ".join(UNIQUE_COLUMNS)} FROM staged_unique_value ORDER BY {", ".join(UNIQUE_COLUMNS)}
    ON CONFLICT DO NOTHING RETURNING {_KEY})
SELECT {_KEY}, count(*) AS uniques FROM added GROUP BY {_KEY}
"""  # noqa: S608 (names of our own)
# A value that no event has any more.
_DELETE_VALUES = f"""
DELETE FROM pool.usage_unique_value AS value USING unnest({_KEYS}) AS key ({_KEY})
 WHERE (value.tenant_id, value.meter_id, value.window_start, value.group_hash)
     = (key.tenant_id, key.meter_id, key.window_start, key.group_hash)
   AND NOT EXISTS (
       SELECT FROM staged_unique_value AS staged
        WHERE (staged.tenant_id, staged.meter_id, staged.window_start, staged.group_hash, staged.value_hash)
            = (value.tenant_id, value.meter_id, value.window_start, value.group_hash, value.value_hash))
"""  # noqa: S608 (names of our own)
_ADD_STAGED_VALUES = f"""
INSERT INTO pool.usage_unique_value ({", ".join(UNIQUE_COLUMNS)})
SELECT DISTINCT {", ".join(UNIQUE_COLUMNS)} FROM staged_unique_value ORDER BY {", ".join(UNIQUE_COLUMNS)}
ON CONFLICT DO NOTHING
"""  # noqa: S608 (names of our own)
_COUNT_VALUES = f"""
SELECT key.ordinal - 1 AS ordinal, count(*) AS uniques
  FROM unnest({_KEYS}) WITH ORDINALITY AS key ({_KEY}, ordinal) JOIN pool.usage_unique_value USING ({_KEY})
 GROUP BY 1
"""  # noqa: S608 (names of our own)


@dataclass(slots=True)
class Kept:
    """What a row of `usage_rollup` says. Which parts there are depends on the aggregation of its meter."""

    count: int = 0
    sum: Quantity | None = None
    minimum: Quantity | None = None
    maximum: Quantity | None = None
    uniques: int | None = None
    latest: Sample | None = None
    run: Run | None = None

    @classmethod
    def of(cls, state: State) -> Kept:
        """The row of a state that was made from raw events."""
        match state:
            case RollupState():
                return cls(state.count, state.sum, state.minimum, state.maximum)
            case UniqueState():
                return cls(state.count, uniques=len(state.values))
            case LatestState():
                return cls(state.count, latest=state.latest)
            case RunState():
                return cls(state.count, run=state.run)
        raise TypeError(f"{type(state).__name__} is no state of a rollup")


async def lock_rollups(
    connection: asyncpg.Connection, keys: Collection[RollupKey], groups: Mapping[bytes, str]
) -> dict[RollupKey, Kept]:
    """The rows of these keys, locked until the caller's transaction ends; those that were not there are empty now.

    `keys` are in order; `groups` has the text of every group hash in them.
    """
    found = await connection.fetch(_LOCK, *key_columns(keys), [groups[key[3]] for key in keys])
    return {_key(row): _kept(row) for row in found}


async def write_rollups(connection: asyncpg.Connection, kept: Mapping[RollupKey, Kept]) -> None:
    """Sets rows that the caller's transaction has locked, and raises their versions."""
    rows = list(kept.values())
    latest = [row.run.latest if row.run is not None else row.latest for row in rows]
    await connection.execute(
        _WRITE,
        *key_columns(kept),
        [row.count for row in rows],
        [_text(row.sum) for row in rows],
        [_text(row.minimum) for row in rows],
        [_text(row.maximum) for row in rows],
        [row.uniques for row in rows],
        [None if row.run is None else str(row.run.integral) for row in rows],
        [None if row.run is None else instant(row.run.first) for row in rows],
        [None if sample is None else instant(sample.at.time) for sample in latest],
        [None if sample is None else instant(sample.at.received) for sample in latest],
        [None if sample is None else sample.at.partition for sample in latest],
        [None if sample is None else sample.at.offset for sample in latest],
        [None if sample is None else str(sample.value) for sample in latest],
    )


async def add_values(
    connection: asyncpg.Connection, states: Mapping[RollupKey, State], *, clear: bool
) -> dict[RollupKey, int]:
    """Stores the values of unique counts; how many of them were new to each rollup.

    `clear` says that the stage was used in this transaction before.
    """
    rows = [
        unique_bytes(key, value)
        for key, state in states.items()
        if isinstance(state, UniqueState)
        for value in state.values
    ]
    if not rows:
        return {}
    await copy_into(connection, "staged_unique_value", UNIQUE_COLUMNS, rows, clear=clear)
    return {_key(row): row["uniques"] for row in await connection.fetch(_ADD_VALUES)}


async def open_stage(connection: asyncpg.Connection) -> None:
    """Makes the stage of different values ready, and empty; not every process that counts anew is a worker."""
    for statement in STAGES:
        await connection.execute(statement)
    await connection.execute("TRUNCATE staged_unique_value")


async def stage_values(connection: asyncpg.Connection, states: Mapping[RollupKey, State]) -> None:
    """Moves the different values that states hold to the stage, behind those that are there."""
    rows = []
    for key, state in states.items():
        if isinstance(state, UniqueState):
            rows += [unique_bytes(key, value) for value in state.values]
            state.values.clear()
    if rows:
        await copy_into(connection, "staged_unique_value", UNIQUE_COLUMNS, rows, clear=False)


async def replace_values(connection: asyncpg.Connection, keys: Sequence[RollupKey]) -> dict[RollupKey, int]:
    """Makes the staged values those of these rollups, whose rows the caller has locked; how many each of them has."""
    await connection.execute(_DELETE_VALUES, *key_columns(keys))
    await connection.execute(_ADD_STAGED_VALUES)
    found = {row["ordinal"]: row["uniques"] for row in await connection.fetch(_COUNT_VALUES, *key_columns(keys))}
    return {key: found.get(number, 0) for number, key in enumerate(keys)}


async def set_rollups(connection: asyncpg.Connection, kept: Mapping[RollupKey, Kept]) -> None:
    """Sets rows that the caller's transaction has locked to what `recount` made of all their raw events."""
    uniques = [key for key, row in kept.items() if row.uniques is not None]
    if uniques:
        for key, number in (await replace_values(connection, uniques)).items():
            kept[key].uniques = number
    await write_rollups(connection, kept)


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


def _kept(row: asyncpg.Record) -> Kept:
    kept = Kept(row["count"], row["sum"], row["minimum"], row["maximum"], row["uniques"])
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


def _text(number: Quantity | None) -> str | None:
    return None if number is None else str(number)
