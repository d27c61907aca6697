"""Taking events out of the rollups that counted them (rule 6): the difference where it can be told, else a recount.

Counts and sums are subtracted. An extreme, a latest sample, a unique value or a point of a series may have been the
event's alone, or not: where the row cannot tell, its hour is counted again from the raw events that are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from usage_service.domain.errors import InvalidQuantity
from usage_service.domain.instants import HOUR
from usage_service.domain.meters import CompiledMeter, Group
from usage_service.domain.quantities import Quantity, add, multiply
from usage_service.domain.rollups import At, LatestState, RollupState, State, UniqueState, empty_state
from usage_service.metering.counting import RollupKey, WindowKey
from usage_service.metering.groups import groups_of
from usage_service.metering.recounting import Archived, recount
from usage_service.metering.rollup_rows import Kept, lock_rollups, set_rollups, write_rollups

_UNMATCHED = """
UPDATE pool.unmatched_type AS known SET count = known.count - cancelled.count
  FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS cancelled (tenant_id, type, count)
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
    """What events have added to rollups."""

    states: dict[RollupKey, State] = field(default_factory=dict)
    meters: dict[RollupKey, CompiledMeter] = field(default_factory=dict)
    groups: dict[bytes, str] = field(default_factory=dict)
    unmatched: dict[tuple[bytes, str], int] = field(default_factory=dict)


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
    told = {key: _without(kept[key], counted.states[key], counted.meters[key]) for key in keys}
    again = {key: counted.meters[key] for key in keys if told[key] is None}
    if again:
        await set_rollups(connection, await recount(connection, again, archived))
    await write_rollups(connection, {key: row for key, row in told.items() if row is not None})
    if counted.unmatched:
        await connection.execute(
            _UNMATCHED,
            [UUID(bytes=tenant) for tenant, _ in counted.unmatched],
            [kind for _, kind in counted.unmatched],
            list(counted.unmatched.values()),
        )
    return keys


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
        meters = [
            meter for meter in versions.get(event.type, ()) if meter.meter.counts(event.catalogue_version, event.time)
        ]
        if not meters:
            place = event.tenant, event.type
            counted.unmatched[place] = counted.unmatched.get(place, 0) + 1
        for meter in meters:
            if not meter.matches(event.data):
                continue
            state = empty_state(meter.meter.definition.aggregation)
            try:
                state.observe(meter, event.data, At(event.time, event.received, event.partition, event.offset))
            except InvalidQuantity:
                continue  # it was listed and not counted
            window = (event.tenant, meter.key, event.time - event.time % HOUR)
            group = _placed(meter, event.data, own.get(window))
            key = (*window, group.hash)
            if key in counted.states:
                counted.states[key].merge(state)
            else:
                counted.states[key] = state
                counted.meters[key] = meter
                counted.groups[group.hash] = group.text
    return counted


def _placed(meter: CompiledMeter, data: Mapping[str, Any], own: set[bytes] | None) -> Group:
    """The group in whose rollup the event was counted: its own where the window has it, for windows lose no group."""
    group = meter.group(data)
    return group if own is None or group.hash in own else meter.overflow


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
