"""What the rules say of records, one after the other, in dictionaries: what the meter worker is compared with."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID

from aiokafka import ConsumerRecord

DIGITS = 9
"""After the point, of value-hours."""

Identity = tuple[str, str, str]
"""Tenant, source and id."""


@dataclass(eq=False, slots=True)
class Stored:
    """An event that is stored. `version` is the meter's that counted it; None where the filter kept it out."""

    tenant: UUID
    day: date
    at: tuple[datetime, int, int, int]
    says: tuple[str, Any]
    number: int
    path: str
    version: int | None
    cancelled: bool = False


@dataclass(slots=True)
class Correction:
    id: str
    asked_day: date | None
    day: date | None
    made: date

    def awaits(self, day: date) -> bool:
        if self.day is not None:
            return False
        return day == self.asked_day if self.asked_day else day <= self.made + timedelta(days=1)


class Window(NamedTuple):
    """A rollup: of which meter and version, of whom, from when, and of which path if the meter has that dimension."""

    meter: str
    version: int
    tenant: UUID
    start: datetime
    path: str


class Model:
    """One meter changes its filter, and is grouped by path; the others count all there is."""

    def __init__(self) -> None:
        self.version = 0
        self.passes: Callable[[dict[str, Any]], bool] = lambda _: True
        self.letters: list[str] = []
        self.conflicts: Counter[Identity] = Counter()
        self._events: defaultdict[Identity, list[Stored]] = defaultdict(list)
        self._corrections: defaultdict[Identity, list[Correction]] = defaultdict(list)

    def expect(self, record: ConsumerRecord) -> None:
        value = json.loads(record.value)
        if value["type"] == "tenantry.correction":
            self._correct(record, value)
        else:
            self._store(record, value)

    def figures(self, meter: str) -> dict[Window, dict[str, Any]]:
        """What the rollups of a meter hold, but for those of which nothing is left."""
        windows: defaultdict[Window, list[Stored]] = defaultdict(list)
        for event in (each for found in self._events.values() for each in found if not each.cancelled):
            start = event.at[0].replace(minute=0)
            if meter != "sum":
                windows[Window(meter, 1, event.tenant, start, "")].append(event)
            elif event.version is not None:
                windows[Window(meter, event.version, event.tenant, start, event.path)].append(event)
        return {window: FIGURES[meter](sorted(events, key=lambda each: each.at)) for window, events in windows.items()}

    def total(self, meter: str, tenant: UUID, first: datetime, last: datetime) -> Decimal | None:
        """The meter's figure of all that counts in [first, last)."""
        counting = [
            each
            for found in self._events.values()
            for each in found
            if each.tenant == tenant and not each.cancelled and (meter != "sum" or each.version is not None)
        ]
        events = sorted((each for each in counting if each.at[0] < last), key=lambda each: each.at)
        inside = [each for each in events if each.at[0] >= first]
        if meter == "time_weighted":
            return _value_hours(events, first, last)
        if meter == "unique_count":
            return Decimal(len({each.number for each in inside}))
        if meter == "count":
            return Decimal(len(inside))
        if not inside:
            return None
        numbers = [each.number for each in inside]
        if meter == "avg":
            return round(Decimal(sum(numbers)) / len(numbers), DIGITS)
        return Decimal({"sum": sum(numbers), "min": min(numbers), "max": max(numbers), "latest": numbers[-1]}[meter])

    def cancelled(self) -> int:
        """How many events are cancelled."""
        return sum(each.cancelled for found in self._events.values() for each in found)

    def _store(self, record: ConsumerRecord, value: dict[str, Any]) -> None:
        identity = value["subject"], value["source"], value["id"]
        time, data = datetime.fromisoformat(value["time"]), value["data"]
        kept, says = self._events[identity], (value["time"], data)
        copies = [each.says for each in kept if abs((each.day - time.date()).days) <= 1]
        if copies:
            self.conflicts[identity] += says not in copies
            return
        at = (time, record.timestamp, record.partition, record.offset)
        version = self.version if self.passes(data) else None
        event = Stored(UUID(value["subject"]), time.date(), at, says, data["n"], data["path"], version)
        kept.append(event)
        for correction in self._corrections[identity]:
            if correction.awaits(event.day):
                correction.day, event.cancelled = event.day, True

    def _correct(self, record: ConsumerRecord, value: dict[str, Any]) -> None:
        cancels = value["data"]["cancels"]
        identity = value["subject"], cancels["source"], cancels["id"]
        asked = datetime.fromisoformat(cancels["time"]).date() if "time" in cancels else None
        known = self._corrections[identity]
        if any(each.id == value["id"] for each in known):
            return
        counted = [each for each in self._events[identity] if not each.cancelled and asked in {None, each.day}]
        if not counted and any(_same(each, asked) for each in known):
            self.letters.append("conflict")
            return
        correction = Correction(value["id"], asked, None, datetime.fromisoformat(value["time"]).date())
        known.append(correction)
        if counted:
            target = max(counted, key=lambda each: each.at[1:])
            correction.day, target.cancelled = target.day, True
        if "replacement" in value["data"]:
            self._store(record, value["data"]["replacement"])


def _same(known: Correction, asked: date | None) -> bool:
    return asked is None or (known.day is None and known.asked_day is None) or asked in {known.day, known.asked_day}


def _integral(events: list[Stored]) -> Decimal:
    """In value-microseconds, from the first sample to the last."""
    pairs = pairwise(events)
    return Decimal(sum(one.number * ((other.at[0] - one.at[0]) // timedelta(microseconds=1)) for one, other in pairs))


def _value_hours(events: list[Stored], first: datetime, last: datetime) -> Decimal | None:
    """Of the last value over time, in [first, last), by events from its beginning on."""
    if not events:
        return None
    ends = [each.at[0] for each in events[1:]] + [last]
    held = [
        each.number * max(timedelta(), end - max(each.at[0], first)) for each, end in zip(events, ends, strict=True)
    ]
    return round(Decimal(sum(held, timedelta()) // timedelta(minutes=1)) / 60, DIGITS)


FIGURES: dict[str, Callable[[list[Stored]], dict[str, Any]]] = {
    "sum": lambda events: {"count": len(events), "sum": Decimal(sum(each.number for each in events))},
    "count": lambda events: {"count": len(events)},
    "avg": lambda events: {"count": len(events), "sum": Decimal(sum(each.number for each in events))},
    "min": lambda events: {"count": len(events), "minimum": Decimal(min(each.number for each in events))},
    "max": lambda events: {"count": len(events), "maximum": Decimal(max(each.number for each in events))},
    "latest": lambda events: {"count": len(events), "latest": Decimal(events[-1].number)},
    "unique_count": lambda events: {
        "count": len(events),
        "uniques": len({each.number for each in events}),
        "stored": len({each.number for each in events}),
    },
    "time_weighted": lambda events: {"count": len(events), "integral": _integral(events)},
}
