from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_service.domain.errors import InvalidWindow
from usage_service.domain.windows import Granularity, pieces, windows, zone

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_days_of_23_and_25_hours_are_days():
    spring = windows(at("2026-03-28T23:00"), at("2026-03-30T22:00"), Granularity.DAY, BERLIN)
    assert [each.end - each.start for each in spring] == [timedelta(hours=23), timedelta(hours=24)]
    autumn = windows(at("2026-10-24T22:00"), at("2026-10-25T23:00"), Granularity.DAY, BERLIN)
    assert [each.end - each.start for each in autumn] == [timedelta(hours=25)]


def test_weeks_begin_on_monday_and_months_on_the_first():
    [week] = windows(at("2026-11-18T12:00"), at("2026-11-18T13:00"), Granularity.WEEK, BERLIN)
    assert (week.start, week.end) == (at("2026-11-15T23:00"), at("2026-11-22T23:00"))
    [month] = windows(at("2026-10-31T23:30"), at("2026-11-01T00:30"), Granularity.MONTH, BERLIN)
    assert (month.start, month.end) == (at("2026-10-31T23:00"), at("2026-11-30T23:00"))


def test_a_range_cuts_its_first_and_last_window():
    first, last = windows(at("2026-11-01T10:30"), at("2026-11-01T11:15"), Granularity.HOUR, zone("UTC"))
    assert (first.start, first.first, first.last) == (
        at("2026-11-01T10:00"),
        at("2026-11-01T10:30"),
        at("2026-11-01T11:00"),
    )
    assert (last.first, last.last, last.end) == (at("2026-11-01T11:00"), at("2026-11-01T11:15"), at("2026-11-01T12:00"))


def test_pieces_are_whole_hours_and_ragged_ends():
    found = pieces(at("2026-11-01T10:30"), at("2026-11-01T13:15"))
    assert found.hours == (at("2026-11-01T11:00"), at("2026-11-01T13:00"))
    assert [end - start for start, end in found.raw] == [timedelta(minutes=30), timedelta(minutes=15)]
    assert pieces(at("2026-11-01T10:30"), at("2026-11-01T10:45")).hours is None


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "x" * 60])
def test_zones_are_iana_zones(name):
    with pytest.raises(InvalidWindow):
        zone(name)


def test_too_many_windows_are_refused():
    with pytest.raises(InvalidWindow):
        windows(at("2026-01-01"), at("2026-01-09"), Granularity.MINUTE, zone("UTC"))


YEARS = (datetime(2005, 1, 1), datetime(2030, 1, 1))  # noqa: DTZ001 (hypothesis wants them naive)
MOMENTS = st.datetimes(*YEARS, timezones=st.just(UTC))


@given(
    MOMENTS,
    st.timedeltas(timedelta(seconds=1), timedelta(hours=20)),
    st.sampled_from(sorted(available_timezones())),
    st.sampled_from(list(Granularity)),
)
def test_windows_tile_the_range(start, length, name, granularity):
    found = windows(start, start + length, granularity, ZoneInfo(name))
    assert found[0].first == start
    assert found[-1].last == start + length
    for before, after in pairwise(found):
        assert before.end == after.start
        assert before.last == after.first
    for each in found:
        assert each.start <= each.first < each.last <= each.end
        parts = pieces(each.first, each.last)
        edges = sorted([*parts.raw, *([parts.hours] if parts.hours else [])])
        assert edges[0][0] == each.first
        assert edges[-1][1] == each.last


LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # its clocks change by half an hour


@pytest.mark.parametrize(
    ("start", "end", "openings"),
    [
        # 02:00+11:00 becomes 01:30+10:30 at 15:00 UTC.
        ("2026-04-04T14:00", "2026-04-04T17:00", ["14:00", "15:00", "15:30", "16:30"]),
        # 02:00+10:30 becomes 02:30+11:00 at 15:30 UTC.
        ("2026-10-03T14:30", "2026-10-03T17:30", ["14:30", "15:30", "16:00", "17:00"]),
    ],
)
def test_a_change_of_clocks_within_a_local_hour_is_a_boundary(start, end, openings):
    found = windows(at(start), at(end), Granularity.HOUR, LORD_HOWE)
    assert [f"{each.start:%H:%M}" for each in found] == openings
    assert all(one.end == other.start for one, other in pairwise(found))


@given(st.integers(0, 60 * 6), st.sampled_from(["2026-04-04T13:00", "2026-10-03T13:00", "2011-12-30T08:00"]))
def test_an_instants_hour_is_the_same_whatever_range_asks(minutes, around):
    for tz in (LORD_HOWE, ZoneInfo("Pacific/Apia"), BERLIN):
        start = at(around)
        whole = windows(start, start + timedelta(hours=8), Granularity.HOUR, tz)
        moment = start + timedelta(minutes=minutes)
        [alone] = windows(moment, moment + timedelta(microseconds=1), Granularity.HOUR, tz)
        assert [(each.start, each.end) for each in whole if each.start <= moment < each.end] == [
            (alone.start, alone.end)
        ]


@pytest.mark.parametrize(
    ("name", "start", "end", "days"),
    [
        # The 30th was skipped, over the date line.
        ("Pacific/Apia", "2011-12-29T12:00", "2012-01-01T00:00", ["29T10:00", "30T10:00", "31T10:00"]),
        ("Australia/Lord_Howe", "2026-04-03T14:00", "2026-04-05T15:00", ["03T13:00", "04T13:00", "05T13:30"]),
        ("Asia/Kathmandu", "2026-11-01T00:00", "2026-11-02T00:00", ["31T18:15", "01T18:15"]),
        # Midnight was skipped, and the day begins at one.
        ("America/Sao_Paulo", "2018-11-03T03:00", "2018-11-05T02:00", ["03T03:00", "04T03:00"]),
        ("America/Nuuk", "2024-03-30T02:00", "2024-04-01T01:00", ["30T02:00", "31T01:00"]),
        # At 00:01 clocks went back to 23:01 of the day before: the day had begun a minute earlier.
        ("America/St_Johns", "2010-11-06T02:30", "2010-11-08T03:30", ["06T02:30", "07T02:30"]),
        ("America/St_Johns", "2010-11-07T02:45", "2010-11-08T03:30", ["07T02:30"]),
    ],
)
def test_days_begin_where_the_zone_has_them_begin(name, start, end, days):
    found = windows(at(start), at(end), Granularity.DAY, zone(name))
    assert [f"{each.start:%dT%H:%M}" for each in found] == days
    assert all(each.first < each.last for each in found)


@pytest.mark.parametrize("granularity", [Granularity.WEEK, Granularity.MONTH])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("Pacific/Apia", "2011-12-30T10:00"),
        ("Australia/Lord_Howe", "2026-04-04T15:00"),
        ("Asia/Kathmandu", "2026-11-01T00:00"),
        ("America/Sao_Paulo", "2018-11-04T03:00"),
        ("America/Nuuk", "2024-03-31T01:00"),
        ("America/St_Johns", "2010-11-07T02:31"),
    ],
)
def test_weeks_and_months_are_made_of_the_days(name, change, granularity):
    start, end = at(change) - timedelta(days=40), at(change) + timedelta(days=40)
    days = windows(start, end, Granularity.DAY, zone(name))
    for each in windows(start, end, granularity, zone(name)):
        inside = [day for day in days if each.first <= day.first < each.last]
        assert (inside[0].first, inside[-1].last) == (each.first, each.last)
        assert granularity is Granularity.MONTH or len(inside) <= 7


@pytest.mark.parametrize("name", ["localtime", "posixrules", "right/UTC", "Europe/Berlin\0", "europe/berlin"])
def test_zones_are_those_of_the_package_and_not_of_the_host(name):
    with pytest.raises(InvalidWindow):
        zone(name)
    assert zoneinfo.TZPATH == ()
