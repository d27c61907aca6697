"""The integral of a value over time, exact whatever the order in which its samples came.

A series is the samples of one group of a meter. Each sample's value holds until the next one; before the first there is
no value and nothing to integrate. Samples of one instant supersede each other as those of `latest` do. A `Run` is what
is kept of the samples of an hour: runs that do not overlap join into one, and the value between two runs is the last of
the earlier one, so any windows can be integrated from runs and the sample before them.

Integrals are in value-microseconds, which are exact; only the answer divides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from usage_service.domain.quantities import Quantity, add, multiply
from usage_service.domain.rollups import Sample


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


def integrate(
    windows: Sequence[tuple[int, int]], runs: Sequence[Sequence[Run]], carried: Sample | None
) -> list[Quantity | None]:
    """The integral over each of the windows [first, last); None where there was no value in it yet.

    The windows follow each other without gaps; `runs` has those inside of each, in order, none over a window's edge.
    `carried` is the sample that holds when the first window opens.
    """
    found: list[Quantity | None] = []
    for (opening, closing), inside in zip(windows, runs, strict=True):
        total: Quantity = 0
        since = opening
        for run in inside:
            if carried is not None:
                total = add(total, multiply(carried.value, run.first - since))
            total = add(total, run.integral)
            carried, since = run.latest, run.latest.at.time
        if carried is not None:
            total = add(total, multiply(carried.value, closing - since))
        found.append(None if carried is None else total)
    return found
