"""Meters: what is counted, of which events, by which dimensions.

A meter is changed by making a new version; each version counts the events that were stored under the catalogue
versions from `since` up to, but not including, `until`. So every event is counted by exactly one version of a meter, a
change never touches what was counted before, and any figure can be recomputed from the raw events. A meter's first
version may be told to count, of the events that were stored before it was made, those from an instant on as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from itertools import groupby
from uuid import UUID

import msgspec

from usage_service.domain.corrections import CORRECTION
from usage_service.domain.errors import InvalidDefinition, InvalidPath
from usage_service.domain.filters import Predicate, predicates
from usage_service.domain.identity import canonical_json
from usage_service.domain.jsonpath import reader
from usage_service.domain.quantities import value_text
from usage_service.domain.units import has_no_length

MAX_DIMENSIONS = 10
MAX_GROUPS = 1_000  # different groups of one tenant, meter and hour; what comes after them goes to OVERFLOW
MAX_GROUP_VALUE = 256  # characters of one dimension's value; a longer one is not a dimension but a text: OVERFLOW
OVERFLOW = "__other__"

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_DIMENSION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_REMEMBERED_GROUPS = 4_096


class Aggregation(StrEnum):
    COUNT = "count"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    AVG = "avg"
    LATEST = "latest"
    UNIQUE_COUNT = "unique_count"
    TIME_WEIGHTED = "time_weighted"


GATHERED = frozenset({Aggregation.LATEST, Aggregation.UNIQUE_COUNT, Aggregation.TIME_WEIGHTED})
"""Aggregations whose states the database cannot add up: they are merged here, under a lock on the rollup's row."""


class MeterDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What a client puts. Two equal definitions are the same version."""

    event_type: str
    aggregation: Aggregation
    value: str | None = None
    group_by: dict[str, str] = msgspec.field(default_factory=dict)
    filter: dict[str, object] = msgspec.field(default_factory=dict)
    unit: str = ""


class Meter(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a meter as it is stored. `id` is the version's own.

    Times are microseconds (`domain.instants`). Of what was stored before the meter was made, what happened before
    `incomplete_until` is not all counted yet.
    """

    id: UUID
    slug: str
    version: int
    definition: MeterDefinition
    since: int
    until: int | None = None
    backfill_from: int | None = None
    incomplete_until: int | None = None
    created_at: int = 0

    def counts(self, catalogue_version: int, time: int) -> bool:
        """Whether this version counts an event of a time that was stored under a version of the catalogue."""
        if catalogue_version < self.since:
            return self.backfill_from is not None and time >= self.backfill_from
        return self.until is None or catalogue_version < self.until

    def is_current(self, catalogue_version: int) -> bool:
        """Whether this version counts the events that are stored from a version of the catalogue on."""
        return self.since <= catalogue_version and (self.until is None or catalogue_version < self.until)


@dataclass(frozen=True, slots=True)
class Era:
    """Consecutive versions of a meter with the same dimensions; it ends where the first with others was made."""

    versions: Sequence[Meter]
    end: int | None


def eras(versions: Sequence[Meter]) -> list[Era]:
    """The eras of all versions of a meter, which are in order: the series of one go on through its versions."""
    found = [list(same) for _, same in groupby(versions, key=lambda meter: meter.definition.group_by)]
    ends = [after[0].created_at for after in found[1:]]
    return [Era(same, end) for same, end in zip(found, [*ends, None], strict=True)]


def check_definition(slug: str, definition: MeterDefinition) -> None:
    """Raises InvalidDefinition with the field and the reason; returns for a definition that can be counted."""
    if not _SLUG.fullmatch(slug):
        raise InvalidDefinition("slug", "lower-case letters, digits, - and _, at most 63 characters")
    _check_event_type(definition.event_type)
    _check_text("unit", definition.unit)
    if definition.aggregation is Aggregation.COUNT:
        if definition.value is not None:
            raise InvalidDefinition("value", "a count has no value")
    elif definition.value is None:
        raise InvalidDefinition("value", f"{definition.aggregation} needs the path of a value")
    if definition.aggregation is Aggregation.TIME_WEIGHTED and has_no_length(definition.unit):
        raise InvalidDefinition(
            "unit", "months, quarters and years differ in length; a value is weighted by hours or days"
        )
    if len(definition.group_by) > MAX_DIMENSIONS:
        raise InvalidDefinition("group_by", f"at most {MAX_DIMENSIONS} dimensions")
    for name in definition.group_by:
        if not _DIMENSION.fullmatch(name):
            raise InvalidDefinition("group_by", f"{name[:70]!r} is not a name: letters, digits and _, at most 63")
    CompiledMeter.of(Meter(id=UUID(int=0), slug=slug, version=1, definition=definition, since=0))


@dataclass(frozen=True, slots=True)
class Group:
    """The values of a meter's dimensions: their JSON text and 16 bytes that stand for it in keys."""

    hash: bytes
    text: str

    @classmethod
    def of(cls, names: Iterable[str], values: Iterable[str]) -> Group:
        text = canonical_json(dict(zip(names, values, strict=True)))
        return cls(blake2b(text.encode(), digest_size=16).digest(), text)


NO_GROUP = Group.of((), ())


@dataclass(frozen=True, slots=True)
class CompiledMeter:
    """A meter with its paths and filters turned into functions, for counting many events."""

    meter: Meter
    key: bytes
    value: Callable[[Mapping[str, object]], object] | None
    dimensions: tuple[str, ...]
    readers: tuple[Callable[[Mapping[str, object]], object], ...]
    tests: tuple[tuple[Callable[[Mapping[str, object]], object], Predicate], ...]
    extremes: bool
    sums: bool
    gathers: bool
    overflow: Group
    _groups: dict[tuple[object, ...], Group] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, meter: Meter) -> CompiledMeter:
        """Raises InvalidDefinition when a path or a filter is wrong."""
        definition = meter.definition
        dimensions = tuple(sorted(definition.group_by))
        return cls(
            meter=meter,
            key=meter.id.bytes,
            value=None if definition.value is None else _reader("value", definition.value),
            dimensions=dimensions,
            readers=tuple(_reader("group_by", definition.group_by[name]) for name in dimensions),
            tests=tuple(
                (_reader("filter", place), test) for place, test in predicates(definition.filter, loc="filter")
            ),
            extremes=definition.aggregation in {Aggregation.MIN, Aggregation.MAX},
            sums=definition.aggregation in {Aggregation.SUM, Aggregation.AVG},
            gathers=definition.aggregation in GATHERED,
            overflow=Group.of(dimensions, [OVERFLOW] * len(dimensions)) if dimensions else NO_GROUP,
        )

    def matches(self, data: Mapping[str, object]) -> bool:
        """Whether the filter lets an event of the meter's type through."""
        return all(test(read(data)) for read, test in self.tests)

    def read(self, data: Mapping[str, object]) -> object:
        """The event's value; None where it is missing, null, or not asked for."""
        return None if self.value is None else self.value(data)

    def group(self, data: Mapping[str, object]) -> Group:
        """The event's group; a missing dimension is the empty text."""
        values = tuple([read(data) for read in self.readers])
        try:
            # Only groups of short texts are remembered under the values themselves: 1 and true are equal in Python.
            known = self._groups.get(values)
        except TypeError:  # a list or an object
            known = None
        if known is not None:
            return known
        group = Group.of(self.dimensions, [_dimension_text(value) for value in values])
        if all(value is None or (type(value) is str and len(value) <= MAX_GROUP_VALUE) for value in values):
            if len(self._groups) >= _REMEMBERED_GROUPS:
                self._groups.clear()
            self._groups[values] = group
        return group


def _check_event_type(event_type: str) -> None:
    if not event_type:
        raise InvalidDefinition("event_type", "names the type of the events that count")
    if event_type == CORRECTION:
        raise InvalidDefinition("event_type", "is kept for corrections, which no meter counts")
    _check_text("event_type", event_type)


def _check_text(loc: str, text: str) -> None:
    if "\0" in text:
        raise InvalidDefinition(loc, "contains NUL, which cannot be stored")


def _reader(loc: str, path: str) -> Callable[[Mapping[str, object]], object]:
    try:
        return reader(path)
    except InvalidPath as error:
        raise InvalidDefinition(loc, f"{path[:80]!r}: {error}") from None


def _dimension_text(value: object) -> str:
    if value is None:
        return ""
    text = value_text(value)
    return text if len(text) <= MAX_GROUP_VALUE else OVERFLOW


class Catalogue(msgspec.Struct, frozen=True):
    """The meters that count now, at one version of the catalogue."""

    version: int
    by_type: dict[str, tuple[CompiledMeter, ...]]

    @classmethod
    def of(cls, version: int, meters: Iterable[Meter]) -> Catalogue:
        by_type: dict[str, list[CompiledMeter]] = {}
        for meter in meters:
            if meter.is_current(version):
                by_type.setdefault(meter.definition.event_type, []).append(CompiledMeter.of(meter))
        return cls(version, {name: tuple(found) for name, found in by_type.items()})
