"""Taking events out of the rollups that counted them (rule 6): the difference where it can be told, else a recount.

Counts and sums are subtracted. An extreme, a latest sample, a unique value or a point of a series may have been the
event's alone, or not: where the row cannot tell, its hour is counted again from the raw events that are left. So it is
where a backfill has yet to come to the event, or may just have: the row has it or not, and is what it is to be then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from usage_service.domain.errors import InvalidQuantity
from usage_service.domain.instants import HOUR, instant
from usage_service.domain.meters import CompiledMeter, Group
from usage_service.domain.quantities import Quantity, add, multiply
from usage_service.domain.rollups import At, LatestState, RollupState, State, UniqueState, empty_state
from usage_service.metering.counting import RollupKey, WindowKey
from usage_service.metering.groups import groups_of
from usage_service.metering.recounting import Archived, recount
from usage_service.metering.rollup_rows import Kept, lock_rollups, set_rollups, write_rollups

_LOCK_LIST = """
SELECT FROM pool.unmatched_type WHERE (tenant_id, type) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))
 ORDER BY tenant_id, type FOR UPDATE
"""
# A backfill that has passed an event has taken it off the list. It has passed some tenants of its day, and some hours
# of the one whose id follows on theirs (`backfilling.scopes`).
_TAKE_OFF = """
UPDATE pool.unmatched_type AS known SET count = known.count - cancelled.count
  FROM (SELECT event.tenant_id, event.type, count(*) AS count
          FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::uuid[]) AS event (tenant_id, type, time, previous)
         CROSS JOIN LATERAL (SELECT event.time AT TIME ZONE 'UTC' AS utc) AS local
         WHERE NOT EXISTS (
               SELECT FROM system.meter_backfill AS job JOIN system.meter AS meter ON meter.id = job.meter_id
                WHERE meter.event_type = event.type AND job.state <> 'waiting'
                  AND event.time >= job.first_time AND event.time < job.unmatched_until
                  AND (job.day IS NULL OR job.day < utc::date
                       OR job.day = utc::date
                          AND (event.tenant_id <= job.after_tenant
                               OR event.previous = job.after_tenant AND extract(hour FROM utc) < job.hours)))
         GROUP BY 1, 2) AS cancelled
 WHERE known.tenant_id = cancelled.tenant_id AND known.type = cancelled.type
"""

Versions = Mapping[str, Sequence[CompiledMeter]]
"""All versions of meters by the type of their events."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event that was stored, and counted under a version of the catalogue; times are microseconds."""

    tenant: bytes
    type: str
    time: int
    received: int
    partition: int
    offset: int
    catalogue_version: int
    data: Mapping[str, Any]


@dataclass(slots=True)
class _Counted:
    """What events have added to rollups; to those in `unsure` they may not have added it yet."""

    states: dict[RollupKey, State] = field(default_factory=dict)
    meters: dict[RollupKey, CompiledMeter] = field(default_factory=dict)
    groups: dict[bytes, str] = field(default_factory=dict)
    unsure: set[RollupKey] = field(default_factory=set)


async def cancel_events(
    connection: asyncpg.Connection,
    events: Sequence[StoredEvent],
    versions: Versions,
    archived: Archived | None = None,
) -> list[RollupKey]:
    """Takes out what these events have added, in the caller's transaction; returns the keys of the changed rollups.

    `versions` has all meters of their types. Their corrections are kept and name their days, so that no recount finds
    them. `archived` is needed for events that have left PostgreSQL.
    """
    windows = _windows(events, versions)
    counted = _counted(events, versions, await groups_of(connection, windows) if windows else {})
    keys = sorted(counted.states)
    kept = await lock_rollups(connection, keys, counted.groups)
    told = {
        key: None if key in counted.unsure else _without(kept[key], counted.states[key], counted.meters[key])
        for key in keys
    }
    again = {key: counted.meters[key] for key in keys if told[key] is None}
    if again:
        await set_rollups(connection, await recount(connection, again, archived))
    await write_rollups(connection, {key: row for key, row in told.items() if row is not None})
    # After the locks: what a backfill does to the same rollups it has done to the list, too.
    await _take_off_the_list(connection, [event for event in events if _was_unmatched(event, versions)])
    return keys


async def _take_off_the_list(connection: asyncpg.Connection, events: Sequence[StoredEvent]) -> None:
    if not events:
        return
    tenants, types = [UUID(bytes=event.tenant) for event in events], [event.type for event in events]
    await connection.execute(_LOCK_LIST, tenants, types)
    times, previous = [instant(event.time) for event in events], [UUID(int=each.int - 1) for each in tenants]
    await connection.execute(_TAKE_OFF, tenants, types, times, previous)


def _was_unmatched(event: StoredEvent, versions: Versions) -> bool:
    """Whether no meter counted the event when it came."""
    return not any(meter.meter.is_current(event.catalogue_version) for meter in versions.get(event.type, ()))


def _windows(events: Iterable[StoredEvent], versions: Versions) -> set[WindowKey]:
    """The windows of meters with dimensions, whose groups decide which rollup an event is in."""
    return {
        (event.tenant, meter.key, event.time - event.time % HOUR)
        for event in events
        for meter in versions.get(event.type, ())
        if meter.readers and meter.meter.counts(event.catalogue_version, event.time)
    }


def _counted(
    events: Iterable[StoredEvent],
    versions: Versions,
    own: Mapping[WindowKey, set[bytes]],
) -> _Counted:
    counted = _Counted()
    for event in events:
        for meter in versions.get(event.type, ()):
            if not meter.meter.counts(event.catalogue_version, event.time) or not meter.matches(event.data):
                continue
            state = empty_state(meter.meter.definition.aggregation)
            try:
                state.observe(meter, event.data, At(event.time, event.received, event.partition, event.offset))
            except InvalidQuantity:
                continue  # it was listed and not counted
            window = (event.tenant, meter.key, event.time - event.time % HOUR)
            unsure = _is_unsure(event, meter)
            group = _placed(meter, event.data, own.get(window), unsure=unsure)
            key = (*window, group.hash)
            if unsure:
                counted.unsure.add(key)
            if key in counted.states:
                counted.states[key].merge(state)
            else:
                counted.states[key] = state
                counted.meters[key] = meter
                counted.groups[group.hash] = group.text
    return counted


def _is_unsure(event: StoredEvent, meter: CompiledMeter) -> bool:
    """Whether a backfill of the meter may not have counted the event yet."""
    until = meter.meter.incomplete_until
    return event.catalogue_version < meter.meter.since and until is not None and event.time < until


def _placed(meter: CompiledMeter, data: Mapping[str, Any], own: set[bytes] | None, *, unsure: bool) -> Group:
    """The group in whose rollup the event was counted: its own where the window has it, for windows lose no group.

    A window that is not all counted may get it yet, unless it is full.
    """
    group = meter.group(data)
    if own is None or group.hash in own or (unsure and meter.overflow.hash not in own):
        return group
    return meter.overflow


def _without(kept: Kept, state: State, meter: CompiledMeter) -> Kept | None:
    """The row without a state that is in it; None where only its raw events can tell."""
    count = kept.count - state.count
    if count < 0 or isinstance(state, UniqueState):
        return None
    if count == 0:
        return Kept()
    match state:
        case RollupState() if not meter.extremes:
            return Kept(count, sum=_difference(kept.sum, state.sum))
        case RollupState() if _inside(kept, state):
            return Kept(count, minimum=kept.minimum, maximum=kept.maximum)
        case LatestState() if kept.latest is not None and state.latest is not None and state.latest.at < kept.latest.at:
            return Kept(count, latest=kept.latest)
    return None


def _difference(kept: Quantity | None, cancelled: Quantity | None) -> Quantity | None:
    return kept if kept is None or cancelled is None else add(kept, multiply(cancelled, -1))


def _inside(kept: Kept, state: RollupState) -> bool:
    """Whether none of the cancelled values was an extreme."""
    if kept.minimum is None or kept.maximum is None or state.minimum is None or state.maximum is None:
        return False
    return kept.minimum < state.minimum and state.maximum < kept.maximum
