"""What the figures must be: plain dictionaries over what Kafka has, without a line of the product's code.

It goes by the rules: an identity counts once in its own day and the day on either side, the copy with the lowest
(partition, offset) decides; a value that is no number is reported for the meter and counts nowhere in it.
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


@dataclass
class Expected:
    """All that must be found.

    `stored` is how many events are kept, `conflicts` are identities that say two things, `samples` are the values of
    files by tenant in the order of receipt, `paths` what a tenant has asked for.
    """

    seen: set[Identity] = field(default_factory=set)
    stored: int = 0
    samples: dict[str, list[tuple[datetime, Decimal]]] = field(default_factory=lambda: defaultdict(list))
    paths: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    windows: dict[Window, Figure] = field(default_factory=lambda: defaultdict(Figure))
    conflicts: set[Identity] = field(default_factory=set)
    invalid: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    unmatched: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))


def expect(values: Iterable[bytes]) -> Expected:
    """What must be counted of the values of `usage.events.v1`, given in the order of (partition, offset)."""
    expected = Expected()
    kept: dict[Identity, list[tuple[date, str]]] = defaultdict(list)
    for value in values:
        event = json.loads(value, parse_float=Decimal)
        key = identity(event)
        expected.seen.add(key)
        at = datetime.fromisoformat(event["time"]).astimezone(UTC)
        says = json.dumps([event["type"], at.isoformat(), event["data"]], sort_keys=True, default=str)
        copies = [said for day, said in kept[key] if abs((day - at.date()).days) <= 1]
        if copies:
            if says not in copies:
                expected.conflicts.add(key)
            continue
        kept[key].append((at.date(), says))
        expected.stored += 1
        _count(expected, event, at)
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


def _count(expected: Expected, event: Mapping[str, Any], at: datetime) -> None:
    hour = at.replace(minute=0, second=0, microsecond=0)
    tenant, data = event["subject"], event["data"]
    meters = {slug: meter for slug, meter in METERS.items() if meter["event_type"] == event["type"]}
    if not meters:
        expected.unmatched[tenant, event["type"]] += 1
    for slug, meter in meters.items():
        if any(data[path[2:]] != test["eq"] for path, test in meter.get("filter", {}).items()):
            continue
        value = None
        if slug == "paths":
            expected.paths[tenant].add(data["path"])
        elif "value" in meter:
            if isinstance(data["bytes"], str):
                expected.invalid[tenant, slug] += 1
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
