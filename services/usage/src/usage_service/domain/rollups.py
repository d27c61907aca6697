"""The state of one window of one meter: what can be merged, in any order, into any coarser window.

A state is never a delta: merging two states of disjoint sets of events gives the state of their union. `count` counts
the events that the meter counted. What else there is depends on the aggregation:

- `RollupState` of count, sum, min, max and avg: numbers that the database can add;
- `LatestState`: the sample that supersedes all others;
- `UniqueState`: the different values;
- `SeriesState`: samples in time, of which `domain.series` makes an integral.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, Self

from usage_service.domain.errors import InvalidQuantity
from usage_service.domain.meters import Aggregation, CompiledMeter
from usage_service.domain.quantities import Quantity, add, multiply, number_text, quantity_of, ratio_text, value_text


class At(NamedTuple):
    """When an event happened, and where it stands: the order in which values supersede each other.

    By time, then by receipt (rule 8); records received in the same millisecond by their place. Times are microseconds.
    """

    time: int
    received: int
    partition: int
    offset: int


class Sample(NamedTuple):
    """A value at its place in the order."""

    at: At
    value: Quantity


class State:
    """What all states do."""

    __slots__ = ()

    count: int

    @abstractmethod
    def observe(self, meter: CompiledMeter, data: Mapping[str, object], at: At) -> None:
        """Counts one event that matches the meter. Raises InvalidQuantity, and changes nothing, otherwise."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Takes in the state of other events of the same meter."""

    @abstractmethod
    def figure(self, aggregation: Aggregation) -> str | None:
        """The meter's value in this window, as an answer says it; None where nothing was counted (but counts are 0)."""


@dataclass(slots=True)
class RollupState(State):
    count: int = 0
    sum: Quantity | None = None
    minimum: Quantity | None = None
    maximum: Quantity | None = None

    def observe(self, meter: CompiledMeter, data: Mapping[str, object], at: At) -> None:  # noqa: ARG002 (a sum has no order)
        observe(meter, data, self)

    def merge(self, other: Self) -> None:
        self.count += other.count
        self.sum = _added(self.sum, other.sum)
        if other.minimum is not None and (self.minimum is None or other.minimum < self.minimum):
            self.minimum = other.minimum
        if other.maximum is not None and (self.maximum is None or other.maximum > self.maximum):
            self.maximum = other.maximum

    def repeat(self, times: int) -> None:
        """Becomes the state of so many times the same events."""
        self.count *= times
        self.sum = None if self.sum is None else multiply(self.sum, times)

    def figure(self, aggregation: Aggregation) -> str | None:
        if aggregation is Aggregation.COUNT:
            return str(self.count)
        if aggregation is Aggregation.AVG:
            return ratio_text(self.sum or 0, self.count) if self.count else None
        value = {Aggregation.SUM: self.sum, Aggregation.MIN: self.minimum, Aggregation.MAX: self.maximum}[aggregation]
        return None if value is None else number_text(value)


@dataclass(slots=True)
class LatestState(State):
    count: int = 0
    latest: Sample | None = None

    def observe(self, meter: CompiledMeter, data: Mapping[str, object], at: At) -> None:
        self._supersede(Sample(at, quantity_of(meter.read(data))))
        self.count += 1

    def merge(self, other: Self) -> None:
        self.count += other.count
        if other.latest is not None:
            self._supersede(other.latest)

    def figure(self, aggregation: Aggregation) -> str | None:  # noqa: ARG002 (there is one)
        return None if self.latest is None else number_text(self.latest.value)

    def _supersede(self, sample: Sample) -> None:
        if self.latest is None or self.latest.at < sample.at:
            self.latest = sample


@dataclass(slots=True)
class UniqueState(State):
    """`values` are 16 bytes each: a hash of the value's text."""

    count: int = 0
    values: set[bytes] = field(default_factory=set)

    def observe(self, meter: CompiledMeter, data: Mapping[str, object], at: At) -> None:  # noqa: ARG002 (a set has no order)
        self.values.add(value_hash(meter.read(data)))
        self.count += 1

    def repeat(self, times: int) -> None:
        """Becomes the state of so many times the same events."""
        self.count *= times

    def merge(self, other: Self) -> None:
        self.count += other.count
        self.values |= other.values

    def figure(self, aggregation: Aggregation) -> str | None:  # noqa: ARG002 (there is one)
        return str(len(self.values))


@dataclass(slots=True)
class SeriesState(State):
    """Samples in the order in which they came. Its figure depends on the time around them: see `domain.series`."""

    count: int = 0
    samples: list[Sample] = field(default_factory=list)

    def observe(self, meter: CompiledMeter, data: Mapping[str, object], at: At) -> None:
        self.samples.append(Sample(at, quantity_of(meter.read(data))))
        self.count += 1

    def merge(self, other: Self) -> None:
        self.count += other.count
        self.samples += other.samples

    def figure(self, aggregation: Aggregation) -> str | None:
        raise TypeError(f"{aggregation}: samples alone have no figure, only the windows around them have")


_STATES: dict[Aggregation, type[State]] = {
    Aggregation.LATEST: LatestState,
    Aggregation.UNIQUE_COUNT: UniqueState,
    Aggregation.TIME_WEIGHTED: SeriesState,
}


def empty_state(aggregation: Aggregation) -> State:
    """The state of no events."""
    return _STATES.get(aggregation, RollupState)()


def value_hash(value: object) -> bytes:
    """What stands for a value where different ones are counted. Raises InvalidQuantity for what is no value.

    Texts, numbers and booleans are values, equal where their texts are: 1, 1.0 and "1" are one value, "01" is another.
    """
    if value is None:
        raise InvalidQuantity("the value is missing or null")
    if isinstance(value, list | dict):
        raise InvalidQuantity("value must be a text, a number or a boolean")
    return blake2b(value_text(value).encode(), digest_size=16).digest()


def _added(left: Quantity | None, right: Quantity | None) -> Quantity | None:
    if left is None:
        return right
    return left if right is None else add(left, right)


def observe(meter: CompiledMeter, data: Mapping[str, object], state: RollupState) -> None:
    """Counts one event that matches the meter. Raises InvalidQuantity, and changes nothing, otherwise."""
    if meter.value is not None:
        value = quantity_of(meter.value(data))
        if meter.sums:
            state.sum = value if state.sum is None else add(state.sum, value)
        elif meter.extremes:
            if state.minimum is None or value < state.minimum:
                state.minimum = value
            if state.maximum is None or value > state.maximum:
                state.maximum = value
    state.count += 1
