"""Rollups whose states the database cannot add: locked, merged with what a batch gathered, and written back."""

from __future__ import annotations

import asyncpg
from prometheus_client import Counter

from usage_service.domain.rollups import LatestState, Sample, SeriesState, UniqueState
from usage_service.domain.series import joined
from usage_service.metering.counting import Increments, RollupKey
from usage_service.metering.recounting import recount
from usage_service.metering.rollup_rows import add_values, lock_rollups, write_rollups

RECOUNTED = Counter("usage_rollups_recounted_total", "Rollups made anew from raw events: samples came out of order")


async def write_gathered(connection: asyncpg.Connection, increments: Increments, *, clear: bool) -> list[RollupKey]:
    """Merges what was gathered into its rollups, in the caller's transaction; returns their keys in order.

    The raw events of the batch are stored. `clear` says that the stage was used in this transaction before.
    """
    keys = sorted(increments.gathered)
    if not keys:
        return keys
    kept = await lock_rollups(connection, keys, increments.groups)
    # Under the lock: a correction may just be taking a value out that no other event had.
    added = await add_values(connection, increments.gathered, clear=clear)
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
        kept |= await recount(connection, meters)
    await write_rollups(connection, kept)
    return keys


def _later(kept: Sample | None, new: Sample | None) -> Sample | None:
    state = LatestState(latest=kept)
    state.merge(LatestState(latest=new))
    return state.latest
