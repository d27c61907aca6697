"""From stored events to increments of rollups: pure, for one batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from usage_service.domain.errors import InvalidQuantity
from usage_service.domain.instants import HOUR
from usage_service.domain.meters import NO_GROUP, Catalogue, CompiledMeter, Group
from usage_service.domain.quantities import SMALL
from usage_service.domain.rollups import At, RollupState, State, empty_state, observe
from usage_service.metering.rows import EventRow

RollupKey = tuple[bytes, bytes, int, bytes]
"""Tenant, meter, start of the hour in microseconds, group hash: sorts as the table's primary key does."""

WindowKey = tuple[bytes, bytes, int]

StateT = TypeVar("StateT", bound=State)


@dataclass(frozen=True, slots=True)
class Uncounted:
    """An event that one meter could not count, with the reason (rule 5)."""

    row: EventRow
    meter: CompiledMeter
    reason: str


@dataclass(slots=True)
class Unmatched:
    count: int
    first: int
    last: int


@dataclass(slots=True)
class Increments:
    """What a batch adds. `groups` holds the text of every group hash in `rollups` and `gathered`.

    The database adds the states of `rollups` to what it has; those of `gathered`, by the meters in `gathering`, are
    merged with it.
    """

    rollups: dict[RollupKey, RollupState] = field(default_factory=dict)
    gathered: dict[RollupKey, State] = field(default_factory=dict)
    gathering: dict[bytes, CompiledMeter] = field(default_factory=dict)
    groups: dict[bytes, str] = field(default_factory=dict)
    dimensional: dict[bytes, CompiledMeter] = field(default_factory=dict)
    uncounted: list[Uncounted] = field(default_factory=list)
    unmatched: dict[tuple[bytes, str], Unmatched] = field(default_factory=dict)


def count_events(rows: Iterable[EventRow], catalogue: Catalogue) -> Increments:  # noqa: C901, PLR0912 (one loop, for speed)
    """The increments of events that were stored under this catalogue."""
    increments = Increments()
    rollups, groups = increments.rollups, increments.groups
    by_type = catalogue.by_type
    for row in rows:
        meters = by_type.get(row.type)
        if meters is None:
            _count_unmatched(increments, row)
            continue
        data = row.data
        hour = row.time - row.time % HOUR
        for meter in meters:
            if meter.tests and not meter.matches(data):
                continue
            group = meter.group(data) if meter.readers else NO_GROUP
            key = (row.tenant, meter.key, hour, group.hash)
            state = rollups.get(key)
            # The two commonest cases without a call: another event of a count, another whole number of a sum.
            if state is not None:
                if meter.value is None:
                    state.count += 1
                    continue
                if meter.sums and type(state.sum) is int:
                    value = meter.value(data)
                    if type(value) is int and -SMALL < value < SMALL:
                        state.sum += value
                        state.count += 1
                        continue
            new = state is None
            if state is None:
                if meter.gathers:
                    _gather(increments, row, meter, key, group)
                    continue
                state = RollupState()
            try:
                observe(meter, data, state)
            except InvalidQuantity as error:
                increments.uncounted.append(Uncounted(row, meter, str(error)))
                continue
            if new:
                rollups[key] = state
                groups[group.hash] = group.text
                if meter.readers:
                    increments.dimensional[meter.key] = meter
    return increments


def _gather(increments: Increments, row: EventRow, meter: CompiledMeter, key: RollupKey, group: Group) -> None:
    state = increments.gathered.get(key)
    new = state is None
    if state is None:
        state = empty_state(meter.meter.definition.aggregation)
    try:
        state.observe(meter, row.data, At(row.time, row.received, row.partition, row.offset))
    except InvalidQuantity as error:
        increments.uncounted.append(Uncounted(row, meter, str(error)))
        return
    if new:
        increments.gathered[key] = state
        increments.gathering[meter.key] = meter
        increments.groups[group.hash] = group.text
        if meter.readers:
            increments.dimensional[meter.key] = meter


def _count_unmatched(increments: Increments, row: EventRow) -> None:
    seen = increments.unmatched.get((row.tenant, row.type))
    if seen is None:
        increments.unmatched[row.tenant, row.type] = Unmatched(1, row.received, row.received)
    else:
        seen.count += 1
        seen.first = min(seen.first, row.received)
        seen.last = max(seen.last, row.received)


def overflow(increments: Increments, known: dict[WindowKey, set[bytes]], limit: int) -> int:
    """Moves the groups past the bound of their window into `__other__`; returns how many were moved.

    `known` holds the groups each window of a meter with dimensions already has and learns the ones it gets.
    """
    added = _overflow(increments.rollups, increments, known, limit)
    return added + _overflow(increments.gathered, increments, known, limit)


def _overflow(
    states: dict[RollupKey, StateT], increments: Increments, known: dict[WindowKey, set[bytes]], limit: int
) -> int:
    moved = 0
    for key in [key for key in states if key[1] in increments.dimensional]:
        tenant, meter_key, hour, group_hash = key
        other: Group = increments.dimensional[meter_key].overflow
        window = known[tenant, meter_key, hour]
        if group_hash in window or group_hash == other.hash:
            continue
        if len(window) < limit:
            window.add(group_hash)
            continue
        target = (tenant, meter_key, hour, other.hash)
        increments.groups[other.hash] = other.text
        state = states.pop(key)
        if target in states:
            states[target].merge(state)
        else:
            states[target] = state
        moved += 1
    return moved
