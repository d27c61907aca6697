"""What the figures must be: plain dictionaries over what Kafka has, without a line of the product's code.

It goes by the rules: an identity counts once in its own day and the day on either side, and the first copy decides, as
a rule that with the lowest (partition, offset); a copy that says something else is reported; a value that is no number
is reported for the meter and counts nowhere in it. A correction cancels the newest event of its identity that counts,
or that of the day it names, or the first one that comes.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

from aiokafka import ConsumerRecord

from .workload import Identity, Sent, identity, sent

METERS: Mapping[str, Mapping[str, Any]] = {
    "calls": {
        "event_type": "http.request",
        "aggregation": "count",
        "group_by": {"method": "$.method", "section": "$.section"},
    },
    "bandwidth": {"event_type": "http.request", "aggregation": "sum", "value": "$.bytes", "unit": "byte"},
    "largest": {"event_type": "file.stored", "aggregation": "max", "value": "$.bytes", "unit": "byte"},
    "smallest": {"event_type": "file.stored", "aggregation": "min", "value": "$.bytes", "unit": "byte"},
    "gets": {
        "event_type": "file.stored",
        "aggregation": "avg",
        "value": "$.bytes",
        "filter": {"$.method": {"eq": "GET"}},
    },
    "paths": {"event_type": "http.request", "aggregation": "unique_count", "value": "$.path"},
    "last": {"event_type": "file.stored", "aggregation": "latest", "value": "$.bytes", "unit": "byte"},
    "level": {"event_type": "file.stored", "aggregation": "time_weighted", "value": "$.bytes", "unit": "byte"},
}

_MICROSECOND = timedelta(microseconds=1)
_MICROSECONDS_OF_AN_HOUR = 3_600_000_000


class Window(NamedTuple):
    tenant: str
    meter: str
    hour: datetime
    group: str


class Sample(NamedTuple):
    """What a meter has read from an event. In their order samples supersede each other."""

    time: datetime
    received: datetime
    partition: int
    offset: int
    value: Any


@dataclass(frozen=True)
class Figure:
    """What a rollup holds, by the aggregation of its meter; `integral` is in value-microseconds."""

    count: int = 0
    sum: Decimal | None = None
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    uniques: int | None = None
    latest: Sample | None = None
    first_time: datetime | None = None
    integral: Decimal | None = None


@dataclass(frozen=True)
class Place:
    """Where a record stands."""

    received: datetime
    partition: int
    offset: int


@dataclass(eq=False)
class Kept:
    """An event that is stored, in the order of receipt."""

    value: Mapping[str, Any]
    at: datetime
    says: str
    place: Place
    counts: bool = True


@dataclass
class Correction:
    """`day` is there once it has cancelled something; until then it waits for an event, of `asked` if that is there."""

    id: str
    asked: date | None
    made: date
    day: date | None = None

    def awaits(self, day: date) -> bool:
        if self.day is not None:
            return False
        return day == self.asked if self.asked else day <= self.made + timedelta(days=1)


@dataclass
class Expected:
    """All that must be found.

    `seen` and `corrections` are what Kafka has, `stored` is how many events are kept, `cancelled` how many of them do
    not count, `conflicts` are copies that say something else, and second corrections; `types` are those that no meter
    has counted, also where nothing of them is left. `samples` are what the windows' figures were made of.
    """

    seen: set[Sent] = field(default_factory=set)
    corrections: set[str] = field(default_factory=set)
    stored: int = 0
    cancelled: int = 0
    samples: dict[Window, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    windows: dict[Window, Figure] = field(default_factory=dict)
    conflicts: Counter[Identity] = field(default_factory=Counter)
    invalid: Counter[tuple[str, str]] = field(default_factory=Counter)
    unmatched: Counter[tuple[str, str]] = field(default_factory=Counter)
    types: set[tuple[str, str]] = field(default_factory=set)

    def samples_of(self, tenant: str, meter: str) -> list[Sample]:
        """In their order."""
        return sorted(
            sample for window, samples in self.samples.items() if window[:2] == (tenant, meter) for sample in samples
        )


def expect(records: Iterable[ConsumerRecord]) -> Expected:
    """What must be counted of the records of `usage.events.v1`, in order."""
    expected = Expected()
    kept: dict[Identity, list[Kept]] = defaultdict(list)
    corrections: dict[Identity, list[Correction]] = defaultdict(list)
    in_order: list[Kept] = []

    def store(event: Mapping[str, Any], place: Place) -> None:
        key = identity(event)
        expected.seen.add(sent(event))
        at = datetime.fromisoformat(event["time"]).astimezone(UTC)
        says = json.dumps([event["type"], at.isoformat(), event["data"]], sort_keys=True, default=str)
        copies = [each.says for each in kept[key] if abs((each.at.date() - at.date()).days) <= 1]
        if copies:
            if says not in copies:
                expected.conflicts[key] += 1
            return
        new = Kept(event, at, says, place)
        for correction in corrections[key]:
            if correction.awaits(at.date()):
                correction.day, new.counts = at.date(), False
        if new.counts:
            _report(expected, event)
        kept[key].append(new)
        in_order.append(new)

    def correct(event: Mapping[str, Any], place: Place) -> None:
        cancels, replacement = event["data"]["cancels"], event["data"].get("replacement")
        key = Identity(event["subject"], cancels["source"], cancels["id"])
        expected.corrections.add(event["id"])
        if replacement is not None:
            expected.seen.add(sent(replacement))
        if any(each.id == event["id"] for each in corrections[key]):
            return
        asked = None if cancels.get("time") is None else datetime.fromisoformat(cancels["time"]).astimezone(UTC).date()
        counting = [each for each in kept[key] if each.counts and asked in {None, each.at.date()}]
        if not counting and any(
            asked is None or each.asked is each.day is None or asked in {each.asked, each.day}
            for each in corrections[key]
        ):
            expected.conflicts[key] += 1
            return
        made = datetime.fromisoformat(event["time"]).astimezone(UTC).date()
        new = Correction(event["id"], asked, made)
        corrections[key].append(new)
        if counting:
            counting[-1].counts, new.day = False, counting[-1].at.date()
        if replacement is not None:
            store(replacement, place)

    for record in records:
        received = datetime.fromtimestamp(record.timestamp // 1_000, UTC) + timedelta(
            milliseconds=record.timestamp % 1_000
        )
        place = Place(received, record.partition, record.offset)
        event = json.loads(record.value, parse_float=Decimal)
        if event["type"] == "tenantry.correction":
            correct(event, place)
        else:
            store(event, place)
    for each in in_order:
        if each.counts:
            _count(expected, each)
    expected.windows = {
        window: figure_of(METERS[window.meter]["aggregation"], samples) for window, samples in expected.samples.items()
    }
    expected.stored = len(in_order)
    expected.cancelled = sum(not each.counts for each in in_order)
    return expected


def figure_of(aggregation: str, samples: Iterable[Sample]) -> Figure:
    """What a rollup of an aggregation holds of samples, of which there is one at least."""
    ordered = sorted(samples)
    values, count = [each.value for each in ordered], len(ordered)
    match aggregation:
        case "sum" | "avg":
            return Figure(count, sum=sum(values, Decimal(0)))
        case "min" | "max":
            return Figure(count, minimum=min(values), maximum=max(values))
        case "unique_count":
            return Figure(count, uniques=len(set(values)))
        case "latest":
            return Figure(count, latest=ordered[-1])
        case "time_weighted":
            held = sum((one.value * ((other.time - one.time) // _MICROSECOND) for one, other in pairwise(ordered)), 0)
            return Figure(count, latest=ordered[-1], first_time=ordered[0].time, integral=Decimal(held))
    return Figure(count)


def value_hours(samples: Sequence[Sample], until: datetime) -> Decimal | None:
    """The integral of the last value over time, up to `until`, of samples in their order."""
    ends = [each.time for each in samples[1:]] + [until]
    held = [each.value * ((end - each.time) // _MICROSECOND) for each, end in zip(samples, ends, strict=True)]
    return sum(held, Decimal(0)) / _MICROSECONDS_OF_AN_HOUR if held else None


def _meters_of(event: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The meters that are to count an event."""
    data = event["data"]
    return {
        slug: meter
        for slug, meter in METERS.items()
        if meter["event_type"] == event["type"]
        and all(data[path[2:]] == test["eq"] for path, test in meter.get("filter", {}).items())
    }


def _report(expected: Expected, event: Mapping[str, Any]) -> None:
    """Once, when it comes; whatever becomes of it later."""
    if not any(meter["event_type"] == event["type"] for meter in METERS.values()):
        expected.types.add((event["subject"], event["type"]))
    for slug, meter in _meters_of(event).items():
        if meter.get("value") == "$.bytes" and isinstance(event["data"]["bytes"], str):
            expected.invalid[event["subject"], slug] += 1


def _count(expected: Expected, kept: Kept) -> None:
    event, place = kept.value, kept.place
    tenant, data = event["subject"], event["data"]
    hour = kept.at.replace(minute=0, second=0, microsecond=0)
    if not any(meter["event_type"] == event["type"] for meter in METERS.values()):
        expected.unmatched[tenant, event["type"]] += 1
    for slug, meter in _meters_of(event).items():
        value: Any = data[meter["value"][2:]] if "value" in meter else None
        if meter.get("value") == "$.bytes":
            if isinstance(value, str):
                continue
            value = Decimal(value)
        group = {name: data[path[2:]] for name, path in meter.get("group_by", {}).items()}
        sample = Sample(kept.at, place.received, place.partition, place.offset, value)
        expected.samples[Window(tenant, slug, hour, json.dumps(group, sort_keys=True))].append(sample)
