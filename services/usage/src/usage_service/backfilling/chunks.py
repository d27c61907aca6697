"""One step of a backfill: the rollups of a scope are made anew from its raw events, in one transaction.

They are set and never added to, so a step may be repeated. Workers count for the same rollups meanwhile:

1.  The events are counted without a lock.
2.  The rollups are locked in the order of their keys, those that are not there by making them. What a worker has
    committed before is in its rollups and in the raw events; what it commits from now on, it adds to what is set here.
3.  Where PostgreSQL has other events of the scope than before, they are counted once more, under the lock. A group that
    turns up then was not locked: the locks are given back and taken again with it, so that they are taken in order.
4.  What differs from the rows is written, and queued for publication as a worker queues it. The different values of
    `unique_count` are rows of their own, which nobody touches without the lock of their rollup.

A group that a worker commits after the last count has its own events only, and has them all.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import asyncpg

from usage_service.archive.reading import ArchiveReader
from usage_service.backfilling.counting import Recount
from usage_service.backfilling.jobs import Job
from usage_service.backfilling.raw import Order, RawEvents
from usage_service.backfilling.scopes import Scope
from usage_service.domain.meters import MAX_GROUPS, Aggregation, CompiledMeter
from usage_service.metering.counting import RollupKey
from usage_service.metering.groups import groups_of
from usage_service.metering.rollup_rows import (
    Kept,
    lock_rollups,
    open_stage,
    replace_values,
    stage_values,
    write_rollups,
)
from usage_service.metering.rollups import queue_changes

_STAGED_AT_ONCE: Final = 25  # blocks whose different values are in memory, before they go to the stage
_WRITTEN_AT_ONCE: Final = 5_000  # rollups in one row of the queue of changes, about as many as a batch has

# Locked in order: backfills of two meters may have events of one type.
_LOCK_LIST: Final = """
SELECT FROM pool.unmatched_type WHERE tenant_id = ANY($1::uuid[]) AND type = $2 ORDER BY tenant_id FOR UPDATE
"""
_TAKE_OFF: Final = """
UPDATE pool.unmatched_type AS known SET count = known.count - matched.count
  FROM unnest($1::uuid[], $3::bigint[]) AS matched (tenant_id, count)
 WHERE known.tenant_id = matched.tenant_id AND known.type = $2
"""
_FORGET: Final = "DELETE FROM pool.unmatched_type WHERE tenant_id = ANY($1::uuid[]) AND type = $2 AND count <= 0"


async def recount_scope(
    connection: asyncpg.Connection,
    archive: ArchiveReader,
    job: Job,
    meter: CompiledMeter,
    scope: Scope,
    *,
    max_groups: int = MAX_GROUPS,
) -> Recount:
    """Makes the rollups of a scope anew, in the caller's transaction, which has locked the row of the backfill.

    Raises what the archive raises.
    """
    events = RawEvents(connection, archive, scope, meter.meter.definition.event_type)
    recount = await _count(connection, events, Recount(meter, job, max_groups))
    wanted: dict[RollupKey, str] = {}
    again = False
    while True:
        wanted |= {key: recount.groups[key[3]] for key in recount.keys}
        locking = connection.transaction()
        await locking.start()
        kept = await lock_rollups(connection, sorted(wanted), {key[3]: text for key, text in wanted.items()})
        if again or await events.have_changed():
            recount = await _count(connection, events, Recount(meter, job, max_groups))
        if kept.keys() >= set(recount.keys):
            await locking.commit()
            break
        await locking.rollback()
        again = True
    await _write(connection, recount, kept)
    return recount


async def take_off_the_list(connection: asyncpg.Connection, recount: Recount) -> None:
    """What was counted is no longer unmatched. In the caller's transaction, once for each scope."""
    if not recount.unmatched:
        return
    kind = recount.meter.meter.definition.event_type
    tenants: list[UUID] = sorted(recount.unmatched)
    await connection.execute(_LOCK_LIST, tenants, kind)
    await connection.execute(_TAKE_OFF, tenants, kind, [recount.unmatched[tenant] for tenant in tenants])
    await connection.execute(_FORGET, tenants, kind)


async def _count(connection: asyncpg.Connection, events: RawEvents, recount: Recount) -> Recount:
    aggregation = recount.meter.meter.definition.aggregation
    if aggregation is Aggregation.UNIQUE_COUNT:
        await open_stage(connection)
    order = Order.RECEIPT if recount.meter.readers else Order.ANY
    blocks = 0
    async for block in events.blocks(Order.TIME if aggregation is Aggregation.TIME_WEIGHTED else order):
        if windows := recount.unknown_windows(block):
            recount.learn(await groups_of(connection, sorted(windows)))
        recount.count(block)
        blocks += 1
        if blocks % _STAGED_AT_ONCE == 0:
            await stage_values(connection, recount.states)
    await stage_values(connection, recount.states)
    return recount


async def _write(connection: asyncpg.Connection, recount: Recount, kept: dict[RollupKey, Kept]) -> None:
    keys = recount.keys
    uniques: dict[RollupKey, int] = {}
    if recount.meter.meter.definition.aggregation is Aggregation.UNIQUE_COUNT:
        uniques = await replace_values(connection, keys)
    rows = recount.rows(uniques)
    changed = [key for key in keys if rows[key] != kept[key]]
    for start in range(0, len(changed), _WRITTEN_AT_ONCE):
        some = changed[start : start + _WRITTEN_AT_ONCE]
        await write_rollups(connection, {key: rows[key] for key in some})
        await queue_changes(connection, some)
