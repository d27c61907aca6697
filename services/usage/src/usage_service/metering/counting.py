"""From stored events to increments of rollups: pure, for one batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from usage_service.domain.errors import InvalidQuantity
from usage_service.domain.instants import HOUR
from usage_service.domain.meters import NO_GROUP, Catalogue, CompiledMeter, Group
from usage_service.domain.quantities import SMALL
from usage_service.domain.rollups import RollupState, observe
from usage_service.metering.rows import EventRow

RollupKey = tuple[bytes, bytes, int, bytes]
"""Tenant, meter, start of the hour in microseconds, group hash: sorts as the table's primary key does."""

WindowKey = tuple[bytes, bytes, int]


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
    """What a batch adds. `groups` holds the text of every group hash in `rollups`."""

    rollups: dict[RollupKey, RollupState] = field(default_factory=dict)
    groups: dict[bytes, str] = field(default_factory=dict)
    dimensional: dict[bytes, CompiledMeter] = field(default_factory=dict)
    uncounted: list[Uncounted] = field(default_factory=list)
    unmatched: dict[tuple[bytes, str], Unmatched] = field(default_factory=dict)


def count_events(rows: Iterable[EventRow], catalogue: Catalogue) -> Increments:  # noqa: C901 (one loop, for speed)
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
    moved = 0
    for key in [key for key in increments.rollups if key[1] in increments.dimensional]:
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
        increments.rollups.setdefault(target, RollupState()).merge(increments.rollups.pop(key))
        moved += 1
    return moved
