from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_service.domain.errors import InvalidScheduleError
from billing_service.domain.periods import Anchor, Interval, Schedule, add_months, due_periods, zone_named

ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland", "America/Santiago"])
STARTS = st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis asks for naive bounds


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def monthly(start: datetime, **more: object) -> Schedule:
    return Schedule(start, Interval.MONTH, ZoneInfo("UTC"), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("anchor", "months", "expected"),
    [
        (date(2026, 1, 31), 1, date(2026, 2, 28)),
        (date(2026, 1, 31), 2, date(2026, 3, 31)),
        (date(2026, 12, 31), 1, date(2027, 1, 31)),
        (date(2024, 2, 29), 12, date(2025, 2, 28)),
        (date(2024, 2, 29), 48, date(2028, 2, 29)),
    ],
)
def test_months_are_counted_from_the_original_anchor(anchor: date, months: int, expected: date) -> None:
    assert add_months(anchor, months) == expected


def test_a_year_from_29_february() -> None:
    schedule = Schedule(utc(2024, 2, 29), Interval.YEAR, ZoneInfo("UTC"))
    starts = [period.start.date() for period in islice(schedule.periods(), 5)]
    assert starts == [date(2024, 2, 29), date(2025, 2, 28), date(2026, 2, 28), date(2027, 2, 28), date(2028, 2, 29)]


@given(STARTS, st.sampled_from(Interval), st.sampled_from(Anchor), ZONES)
def test_periods_are_seamless_and_start_on_local_midnights(
    start: datetime, interval: Interval, anchor: Anchor, zone: str
) -> None:
    schedule = Schedule(start, interval, ZoneInfo(zone), anchor)
    periods = list(islice(schedule.periods(), 30))
    assert periods[0].start <= start < periods[0].end
    for earlier, later in pairwise(periods):
        assert earlier.end == later.start
        assert earlier.start < earlier.end
    for period in periods[1:]:
        assert period.days_used == period.days_whole
        assert period.share == 1
    assert 0 < periods[0].days_used <= periods[0].days_whole
    assert schedule.period_at(periods[7].start) == periods[7]
    assert schedule.period_at(periods[7].end - timedelta(microseconds=1)) == periods[7]


@given(STARTS, ZONES, st.integers(1, 10**8))
def test_an_end_closes_the_last_period_on_its_day(start: datetime, zone: str, seconds: int) -> None:
    ends_at = start + timedelta(seconds=seconds)
    periods = list(Schedule(start, Interval.MONTH, ZoneInfo(zone), ends_at=ends_at).periods())
    assert periods[-1].start < ends_at <= periods[-1].end
    assert sum(period.days_used for period in periods) >= seconds // 86_400


def test_the_day_of_a_cancellation_is_used_up_and_midnight_is_a_boundary() -> None:
    (period,) = monthly(utc(2026, 3, 1), ends_at=utc(2026, 3, 20, 11)).periods()
    assert (period.end, period.days_used, period.days_whole) == (utc(2026, 3, 21), 20, 31)
    periods = list(monthly(utc(2026, 3, 1), ends_at=utc(2026, 5, 1)).periods())
    assert [period.end for period in periods] == [utc(2026, 4, 1), utc(2026, 5, 1)]


def test_a_calendar_anchor_starts_with_a_partial_period() -> None:
    first, second = islice(monthly(utc(2026, 3, 15, 9), anchor=Anchor.CALENDAR).periods(), 2)
    assert (first.start, first.end, first.days_used, first.days_whole) == (utc(2026, 3, 15), utc(2026, 4, 1), 17, 31)
    assert (second.start, second.end) == (utc(2026, 4, 1), utc(2026, 5, 1))


def test_a_month_in_a_zone_with_summer_time() -> None:
    (march,) = islice(Schedule(utc(2026, 3, 1, 12), Interval.MONTH, ZoneInfo("Europe/Berlin")).periods(), 1)
    assert (march.start, march.end) == (utc(2026, 2, 28, 23), utc(2026, 3, 31, 22))


def test_due_needs_the_end_the_grace_and_the_instant_asked_for() -> None:
    schedule = monthly(utc(2026, 1, 1))
    grace = timedelta(hours=1)

    def due(now: datetime, as_of: datetime, billed: frozenset[datetime] = frozenset()) -> list[date]:
        found = due_periods(schedule, now=now, as_of=as_of, grace=grace, billed=billed)
        return [period.start.date() for period in found]

    late = utc(2027, 1, 1)
    assert due(utc(2026, 2, 1, 0, 59), late) == []
    assert due(utc(2026, 2, 1, 1), late) == [date(2026, 1, 1)]
    assert due(late, utc(2026, 2, 28)) == [date(2026, 1, 1)]
    assert due(late, utc(2026, 3, 1)) == [date(2026, 1, 1), date(2026, 2, 1)]
    assert due(late, utc(2026, 3, 1), frozenset({utc(2026, 1, 1)})) == [date(2026, 2, 1)]


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Australia/Adelaide", "Asia/Kathmandu"])
def test_zones_that_hours_cannot_cut_are_refused(zone: str) -> None:
    with pytest.raises(InvalidScheduleError, match="whole hour"):
        Schedule(utc(2026, 1, 1), Interval.MONTH, ZoneInfo(zone)).validated()


def test_schedules_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidScheduleError, match="ends after"):
        monthly(utc(2026, 1, 2), ends_at=utc(2026, 1, 2)).validated()
    for name in ("Mars/Olympus", "../etc/passwd", ""):
        with pytest.raises(InvalidScheduleError, match="time zone"):
            zone_named(name)
