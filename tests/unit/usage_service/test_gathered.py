"""What a batch gathers of the meters that the database cannot add up, and what is left to those that it can."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from usage_service.domain.instants import HOUR
from usage_service.domain.meters import OVERFLOW, Aggregation, Catalogue, Meter, MeterDefinition
from usage_service.domain.rollups import LatestState, SeriesState, UniqueState
from usage_service.metering.counting import Increments, count_events, overflow
from usage_service.metering.rows import EventRow

TENANT = bytes(16)


def meter(number: int, aggregation: Aggregation, value: str | None) -> Meter:
    definition = MeterDefinition(event_type="t", aggregation=aggregation, value=value, group_by={"g": "$.g"})
    return Meter(id=UUID(int=number), slug=f"m{number}", version=1, definition=definition, since=1)


CATALOGUE = Catalogue.of(
    1,
    [
        meter(1, Aggregation.COUNT, None),
        meter(2, Aggregation.LATEST, "$.v"),
        meter(3, Aggregation.UNIQUE_COUNT, "$.v"),
        meter(4, Aggregation.TIME_WEIGHTED, "$.v"),
    ],
)


def row(offset: int, data: dict[str, object], *, time: int = 0) -> EventRow:
    return EventRow(b"", TENANT, b"", time, 0, 0, 0, offset, 0, "s", str(offset), "t", b"", data)


def counted(*rows: EventRow) -> Increments:
    return count_events(rows, CATALOGUE)


def by_meter(increments: Increments) -> dict[int, list[object]]:
    found: dict[int, list[object]] = {}
    for (_, key, _, _), state in [*increments.rollups.items(), *increments.gathered.items()]:
        found.setdefault(int.from_bytes(key), []).append(state)
    return found


def test_each_aggregation_gathers_what_it_needs():
    found = by_meter(counted(row(1, {"v": 5}, time=7), row(2, {"v": 5}, time=3), row(3, {"v": "x"}, time=9)))
    [latest], [unique], [series] = found[2], found[3], found[4]
    assert isinstance(latest, LatestState)
    assert latest.latest is not None
    assert (latest.count, latest.latest.value, latest.latest.at.offset) == (2, 5, 1)
    assert isinstance(unique, UniqueState)
    assert (unique.count, len(unique.values)) == (3, 2)
    assert isinstance(series, SeriesState)
    assert [sample.at.time for sample in series.samples] == [7, 3]


def test_what_is_no_value_is_listed_for_each_meter_that_cannot_count_it():
    increments = counted(row(1, {"v": None}))
    assert {each.meter.meter.slug for each in increments.uncounted} == {"m2", "m3", "m4"}
    assert not increments.gathered
    assert not increments.gathering


def test_groups_past_the_bound_gather_in_the_overflow_group():
    increments = counted(*[row(number, {"g": str(number), "v": number}, time=number) for number in range(5)])
    latest: Any
    unique: Any
    series: Any
    known: dict[Any, set[bytes]] = {key[:3]: set() for key in [*increments.rollups, *increments.gathered]}
    assert overflow(increments, known, 2) == 4 * 3
    other = next(iter(CATALOGUE.by_type["t"])).overflow.hash
    assert OVERFLOW in increments.groups[other]
    [latest] = [increments.gathered[key] for key in increments.gathered if key[3] == other and key[1][-1] == 2]
    [unique] = [increments.gathered[key] for key in increments.gathered if key[3] == other and key[1][-1] == 3]
    [series] = [increments.gathered[key] for key in increments.gathered if key[3] == other and key[1][-1] == 4]
    assert (latest.count, latest.latest.value) == (3, 4)
    assert (unique.count, len(unique.values)) == (3, 3)
    assert [sample.value for sample in series.samples] == [2, 3, 4]


def test_hours_are_apart():
    increments = counted(row(1, {"v": 1}, time=HOUR - 1), row(2, {"v": 2}, time=HOUR))
    assert {key[2] for key in increments.gathered} == {0, HOUR}
