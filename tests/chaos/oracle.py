"""What the figures must be: plain dictionaries over what Kafka has, without a line of the product's code.

It goes by the rules: an identity counts once in its own day and the day on either side, and the first copy decides, as
a rule that with the lowest (partition, offset); a value that is no number is reported for the meter and counts nowhere
in it. A correction cancels the newest event of its identity that counts, or that of the day it names, or the first one
that comes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from .workload import Identity, identity

METERS: Mapping[str, Mapping[str, Any]] = {
    "calls": {
        "event_type": "http.request",
        "aggregation": "count",
        "group_by": {"method": "$.method", "path": "$.path"},
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


@dataclass
class Figure:
    count: int = 0
    sum: Decimal | None = None
    minimum: Decimal | None = None
    maximum: Decimal | None = None


@dataclass(eq=False)
class Kept:
    """An event that is stored, in the order of receipt."""

    value: Mapping[str, Any]
    at: datetime
    says: str
    counts: bool = True


@dataclass
class Correction:
    """`day` is there once it has cancelled something; until then it waits for an event, of `asked` if that is there."""

    id: str
    asked: date | None
    received: date
    day: date | None = None

    def awaits(self, day: date) -> bool:
        if self.day is not None:
            return False
        return day == self.asked if self.asked else day <= self.received + timedelta(days=1)


@dataclass
class Expected:
    """All that must be found.

    `seen` and `corrections` are what Kafka has, `stored` is how many events are kept, `cancelled` how many of them do
    not count, `conflicts` are identities that say two things, or were corrected twice; `samples` are the values of
    files by tenant in the order of receipt, `paths` what a tenant has asked for.
    """

    seen: set[Identity] = field(default_factory=set)
    corrections: set[str] = field(default_factory=set)
    stored: int = 0
    cancelled: int = 0
    samples: dict[str, list[tuple[datetime, Decimal]]] = field(default_factory=lambda: defaultdict(list))
    paths: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    windows: dict[Window, Figure] = field(default_factory=lambda: defaultdict(Figure))
    conflicts: set[Identity] = field(default_factory=set)
    invalid: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    unmatched: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))


def expect(records: Iterable[tuple[int, bytes]]) -> Expected:
    """What must be counted of `usage.events.v1`: receipt in milliseconds and value, in order."""
    expected = Expected()
    kept: dict[Identity, list[Kept]] = defaultdict(list)
    corrections: dict[Identity, list[Correction]] = defaultdict(list)
    in_order: list[Kept] = []

    def store(event: Mapping[str, Any]) -> None:
        key = identity(event)
        expected.seen.add(key)
        at = datetime.fromisoformat(event["time"]).astimezone(UTC)
        says = json.dumps([event["type"], at.isoformat(), event["data"]], sort_keys=True, default=str)
        copies = [each.says for each in kept[key] if abs((each.at.date() - at.date()).days) <= 1]
        if copies:
            if says not in copies:
                expected.conflicts.add(key)
            return
        new = Kept(event, at, says)
        for correction in corrections[key]:
            if correction.awaits(at.date()):
                correction.day, new.counts = at.date(), False
        if new.counts:
            _report_invalid(expected, event)
        kept[key].append(new)
        in_order.append(new)

    def correct(received: int, event: Mapping[str, Any]) -> None:
        cancels, replacement = event["data"]["cancels"], event["data"].get("replacement")
        key = Identity(event["subject"], cancels["source"], cancels["id"])
        expected.corrections.add(event["id"])
        if replacement is not None:
            expected.seen.add(identity(replacement))
        if any(each.id == event["id"] for each in corrections[key]):
            return
        asked = None if cancels.get("time") is None else datetime.fromisoformat(cancels["time"]).astimezone(UTC).date()
        counting = [each for each in kept[key] if each.counts and asked in {None, each.at.date()}]
        if not counting and any(
            asked is None or each.asked is each.day is None or asked in {each.asked, each.day}
            for each in corrections[key]
        ):
            expected.conflicts.add(key)
            return
        new = Correction(event["id"], asked, datetime.fromtimestamp(received / 1_000, UTC).date())
        corrections[key].append(new)
        if counting:
            counting[-1].counts, new.day = False, counting[-1].at.date()
        if replacement is not None:
            store(replacement)

    for received, value in records:
        event = json.loads(value, parse_float=Decimal)
        if event["type"] == "tenantry.correction":
            correct(received, event)
        else:
            store(event)
    for each in in_order:
        if each.counts:
            _count(expected, each.value, each.at)
    expected.stored = len(in_order)
    expected.cancelled = sum(not each.counts for each in in_order)
    return expected


def latest_of(samples: Iterable[tuple[datetime, Decimal]]) -> Decimal | None:
    """The value of the greatest time; of several, the one that was received last."""
    ordered = sorted(samples, key=lambda sample: sample[0])
    return ordered[-1][1] if ordered else None


def value_hours(samples: Iterable[tuple[datetime, Decimal]], until: datetime) -> Decimal | None:
    """The integral of the last value over time, up to `until`."""
    ordered = sorted(samples, key=lambda sample: sample[0])
    ends = [at for at, _ in ordered[1:]] + [until]
    held = [value * ((end - at) // _MICROSECOND) for (at, value), end in zip(ordered, ends, strict=True)]
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


def _report_invalid(expected: Expected, event: Mapping[str, Any]) -> None:
    """Once, when it comes; whatever becomes of it later."""
    for slug, meter in _meters_of(event).items():
        if meter.get("value") == "$.bytes" and isinstance(event["data"]["bytes"], str):
            expected.invalid[event["subject"], slug] += 1


def _count(expected: Expected, event: Mapping[str, Any], at: datetime) -> None:
    hour = at.replace(minute=0, second=0, microsecond=0)
    tenant, data = event["subject"], event["data"]
    if not any(meter["event_type"] == event["type"] for meter in METERS.values()):
        expected.unmatched[tenant, event["type"]] += 1
    for slug, meter in _meters_of(event).items():
        value = None
        if slug == "paths":
            expected.paths[tenant].add(data["path"])
        elif "value" in meter:
            if isinstance(data["bytes"], str):
                continue
            value = Decimal(data["bytes"])
        group = {name: data[path[2:]] for name, path in meter.get("group_by", {}).items()}
        figure = expected.windows[Window(tenant, slug, hour, json.dumps(group, sort_keys=True))]
        figure.count += 1
        if slug == "last":
            expected.samples[tenant].append((at, Decimal(data["bytes"])))
        if value is not None and meter["aggregation"] in {"sum", "avg"}:
            figure.sum = value + (figure.sum or 0)
        elif value is not None and meter["aggregation"] in {"min", "max"}:
            figure.minimum = value if figure.minimum is None else min(figure.minimum, value)
            figure.maximum = value if figure.maximum is None else max(figure.maximum, value)
