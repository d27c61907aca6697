"""The integral over time, against a model that has all samples and steps through them."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_service.domain.instants import DAY, HOUR, microseconds
from usage_service.domain.quantities import Quantity, ratio_text
from usage_service.domain.rollups import At, LatestState, Sample
from usage_service.domain.series import Integrals, Run, joined, run_of
from usage_service.domain.units import has_no_length, microseconds_of
from usage_service.domain.windows import Granularity, windows, zone

VALUES = st.integers(-100, 10**20) | st.decimals(-1000, 1000, places=6)
TIMES = st.integers(0, 4 * 12 - 1).map(
    lambda quarter: quarter * HOUR // 12
)  # often the same instant, or an hour's edge
SAMPLES = st.lists(st.tuples(TIMES, st.integers(0, 2), VALUES), max_size=25).map(
    lambda found: [
        Sample(At(time, received, number % 2, number), value) for number, (time, received, value) in enumerate(found)
    ]
)


def integrate(windows, runs: dict[int, list[Run]], carried: Sample | None) -> list[Quantity | None]:
    """The integral of one series over each window; None where it had no value yet."""
    integrals = Integrals(windows)
    integrals.add(runs, carried)
    found = dict(integrals.totals())
    return [found.get(number) for number in range(len(windows))]


def model(samples: list[Sample], opening: int, closing: int) -> Fraction | None:
    """Value-microseconds in [opening, closing): from instant to instant, what the greatest sample until then says."""
    if not any(sample.at.time < closing for sample in samples):
        return None
    edges = sorted({opening, closing} | {s.at.time for s in samples if opening < s.at.time < closing})
    total = Fraction(0)
    for since, until in pairwise(edges):
        before = [sample for sample in samples if sample.at.time <= since]
        if before:
            total += Fraction(max(before, key=lambda sample: sample.at).value) * (until - since)
    return total


@given(SAMPLES, st.data())
def test_whatever_the_order_and_the_batches_the_integral_is_that_of_all(samples, data):
    arrivals = data.draw(st.permutations(samples))
    kept: dict[int, Run] = {}
    seen: list[Sample] = []
    while arrivals:
        size = data.draw(st.integers(1, len(arrivals)))
        batch, arrivals = arrivals[:size], arrivals[size:]
        seen += batch
        for hour in {sample.at.time // HOUR for sample in batch}:
            of_hour = [sample for sample in seen if sample.at.time // HOUR == hour]
            new = [sample for sample in batch if sample.at.time // HOUR == hour]
            kept[hour] = joined(kept.get(hour), new) or run_of(of_hour)
    windows = [(hour * HOUR, (hour + 1) * HOUR) for hour in range(6)]
    found = integrate(windows, {hour: [run] for hour, run in kept.items()}, None)
    assert found == [model(samples, *window) for window in windows]


@given(st.lists(SAMPLES, max_size=4), st.integers(1, 5), st.booleans())
def test_integrals_of_several_series_are_the_sum_of_each(series, hours, carry):
    windows = [(start * HOUR, min(start + hours, 6) * HOUR) for start in range(1, 6, hours)]
    integrals = Integrals(windows)
    for samples in series:
        before = [sample for sample in samples if sample.at.time < HOUR] if carry else []
        inside: dict[int, list[Run]] = {}
        for hour in sorted({sample.at.time // HOUR for sample in samples} - {0}):
            run = run_of([sample for sample in samples if sample.at.time // HOUR == hour])
            inside.setdefault((hour - 1) // hours, []).append(run)
        integrals.add(inside, max(before, key=lambda sample: sample.at, default=None))
    wanted: dict[int, Fraction] = {}
    for samples in series:
        known = [sample for sample in samples if carry or sample.at.time >= HOUR]
        for number, window in enumerate(windows):
            total = model(known, *window)
            if total is not None:
                wanted[number] = wanted.get(number, Fraction(0)) + total
    assert dict(integrals.totals()) == wanted


@given(SAMPLES.filter(bool))
def test_runs_that_follow_each_other_are_joined_without_looking_at_their_samples(samples):
    ordered = sorted(samples, key=lambda sample: sample.at)
    whole = run_of(samples)
    for cut in range(1, len(ordered)):
        run = joined(run_of(ordered[:cut]), ordered[cut:])
        assert run is not None
        assert (run.first, run.latest, run.integral) == (whole.first, whole.latest, whole.integral)


def test_a_value_holds_over_windows_without_samples_and_there_is_none_before_the_first():
    sample = Sample(At(HOUR + HOUR // 2, 0, 0, 0), 8)
    windows = [(hour * HOUR, (hour + 1) * HOUR) for hour in range(4)]
    found = integrate(windows, {1: [run_of([sample])]}, None)
    assert found == [None, 4 * HOUR, 8 * HOUR, 8 * HOUR]
    assert integrate([(DAY, 2 * DAY)], {}, sample) == [8 * DAY]


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24)])
def test_a_day_of_23_or_25_hours_holds_a_value_so_long(day, hours):
    start = datetime.fromisoformat(day).replace(tzinfo=zone("Europe/Berlin"))
    [window] = windows(start, start + timedelta(hours=12), Granularity.DAY, zone("Europe/Berlin"))
    sample = Sample(At(microseconds(start) - DAY, 0, 0, 0), 2)
    [integral] = integrate([(microseconds(window.start), microseconds(window.end))], {}, sample)
    assert integral is not None
    assert ratio_text(integral, HOUR) == str(2 * hours)


def test_an_earlier_sample_of_the_same_instant_does_not_supersede():
    later, earlier = Sample(At(5, 2, 0, 9), 7), Sample(At(5, 1, 0, 10), 3)
    assert joined(run_of([later]), [earlier]) is None
    assert run_of([later, earlier]).latest.value == 7


@given(SAMPLES, st.data())
def test_the_latest_is_the_greatest_time_then_the_later_receipt_in_any_order(samples, data):
    state = LatestState()
    for sample in data.draw(st.permutations(samples)):
        state.merge(LatestState(1, sample))
    assert state.latest == max(samples, key=lambda sample: sample.at, default=None)
    assert state.count == len(samples)


@pytest.mark.parametrize(
    ("unit", "length"),
    [
        ("", HOUR),
        ("byte", HOUR),
        ("byte-hours", HOUR),
        ("GiB day", DAY),
        ("byte_seconds", 1_000_000),
        ("seconds", 10**6),
    ],
)
def test_a_value_is_weighted_by_hours_unless_the_unit_says_otherwise(unit, length):
    assert microseconds_of(unit) == length
    assert not has_no_length(unit)


def test_the_calendar_has_no_length():
    assert has_no_length("byte-months")


@pytest.mark.parametrize(
    ("number", "divisor", "text"),
    [(1, 3, "0.333333333333333333"), (-2, 3, "-0.666666666666666667"), (Decimal("7.20"), 2, "3.6"), (0, 5, "0")],
)
def test_a_quotient_is_rounded_after_its_18th_digit(number, divisor, text):
    assert ratio_text(number, divisor) == text
