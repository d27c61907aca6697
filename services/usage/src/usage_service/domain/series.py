"""The integral of a value over time, exact whatever the order in which its samples came.

A series is the samples of one group of a meter. Each sample's value holds until the next one; before the first there is
no value and nothing to integrate. Samples of one instant supersede each other as those of `latest` do. A `Run` is what
is kept of the samples of an hour: runs that do not overlap join into one, and the value between two runs is the last of
the earlier one, so any windows can be integrated from runs and the sample before them.

Integrals are in value-microseconds, which are exact; only the answer divides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from usage_service.domain.meters import Aggregation, CompiledMeter
from usage_service.domain.quantities import Quantity, add, multiply, quantity_of
from usage_service.domain.rollups import At, Sample, State, empty_state


@dataclass(slots=True)
class Run:
    """Samples from the time `first` to `latest`, and the integral between the two."""

    first: int
    latest: Sample
    integral: Quantity = 0

    def extend(self, later: Run) -> None:
        """Joins a run all of whose samples supersede those of this one."""
        self.integral = add(add(self.integral, held(self.latest, later.first)), later.integral)
        self.latest = later.latest


@dataclass(slots=True)
class RunState(State):
    """A series whose samples come in order: what is kept of them is their run, however many there are."""

    count: int = 0
    run: Run | None = None

    def observe(self, meter: CompiledMeter, data: Mapping[str, object], at: At) -> None:
        new = Run(at.time, Sample(at, quantity_of(meter.read(data))))
        if self.run is None:
            self.run = new
        else:
            self.run.extend(new)
        self.count += 1

    def merge(self, other: Self) -> None:  # noqa: ARG002 (whatever it is)
        raise TypeError("samples of two runs may lie between one another")

    def figure(self, aggregation: Aggregation) -> str | None:
        raise TypeError(f"{aggregation}: a run alone has no figure, only the windows around it have")


def ordered_state(aggregation: Aggregation) -> State:
    """The state of no events, of those that will come by time, receipt and place."""
    return RunState() if aggregation is Aggregation.TIME_WEIGHTED else empty_state(aggregation)


def held(sample: Sample, until: int) -> Quantity:
    """The integral from a sample to an instant at which it still holds."""
    return multiply(sample.value, until - sample.at.time)


def run_of(samples: Iterable[Sample]) -> Run:
    """The run of all the samples, of which there is at least one, in any order."""
    ordered = sorted(samples, key=lambda sample: sample.at)
    run = Run(ordered[0].at.time, ordered[0])
    for sample in ordered[1:]:
        run.extend(Run(sample.at.time, sample))
    return run


def joined(run: Run | None, samples: Sequence[Sample]) -> Run | None:
    """The run of what is kept and new samples, where it can be told; None where they overlap.

    Then only all the samples can tell.
    """
    new = run_of(samples)
    if run is None:
        return new
    if run.latest.at < min(sample.at for sample in samples):
        run.extend(new)
        return run
    if new.latest.at.time < run.first:
        new.extend(run)
        return new
    return None


class Integrals:
    """Integrals over windows, added up over series. A series costs what its runs do, however many windows there are.

    The windows [first, last) follow each other without gaps.
    """

    def __init__(self, windows: Sequence[tuple[int, int]]) -> None:
        self._windows = windows
        self._cut: dict[int, Quantity] = {}
        """Of windows in which a series has samples: what it adds."""
        self._changes: dict[int, tuple[int, Quantity]] = {}
        """By how many series, and by how much, what is held over whole windows changes where a window opens."""

    def add(self, runs: Mapping[int, Sequence[Run]], carried: Sample | None) -> None:
        """Adds a series: its runs by number of the window, in order, none over a window's edge.

        `carried` is the sample that holds when the first window opens.
        """
        since = 0
        for number, inside in sorted(runs.items()):
            self._hold(carried, since, number)
            opening, closing = self._windows[number]
            total = self._cut.get(number, 0)
            for run in inside:
                if carried is not None:
                    total = add(total, multiply(carried.value, run.first - opening))
                total = add(total, run.integral)
                carried, opening = run.latest, run.latest.at.time
            assert carried is not None
            self._cut[number] = add(total, multiply(carried.value, closing - opening))
            since = number + 1
        self._hold(carried, since, len(self._windows))

    def totals(self) -> Iterator[tuple[int, Quantity]]:
        """The windows, by number and in order, in which a series had a value; and the integral."""
        series = 0
        level: Quantity = 0
        for number, (opening, closing) in enumerate(self._windows):
            more, change = self._changes.get(number, (0, 0))
            series, level = series + more, add(level, change)
            if series or number in self._cut:
                yield number, add(self._cut.get(number, 0), multiply(level, closing - opening))

    def _hold(self, sample: Sample | None, first: int, end: int) -> None:
        if sample is None or first == end:
            return
        for number, sign in ((first, 1), (end, -1)):
            series, level = self._changes.get(number, (0, 0))
            self._changes[number] = (series + sign, add(level, multiply(sample.value, sign)))
