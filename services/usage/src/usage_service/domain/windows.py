"""Windows of a query: half-open, in an IANA zone, cut by the range that was asked for.

All of it happens here, in Python, against the pinned `tzdata` and not what the host has; the database only compares
instants. A day or month is a local one: on the days of a change of clocks it has 23 or 25 hours and is still one
window.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo, available_timezones, reset_tzpath

from usage_service.domain.errors import InvalidWindow

# Zones made before this are the host's; UTC is the same everywhere.
reset_tzpath(())
ZoneInfo.clear_cache()
_NAMES = frozenset(available_timezones())

# Far from both ends of the calendar, which windows and zones would step over.
_EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
MAX_WINDOWS = 10_000
MAX_MINUTES = 10_140  # a week in which clocks go back


class Granularity(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Window:
    """[start, end): the whole window as the calendar has it; [first, last) is the part inside the asked range."""

    start: datetime
    end: datetime
    first: datetime
    last: datetime


def check_range(start: datetime, end: datetime) -> None:
    """Raises InvalidWindow for a range that windows cannot be made of. One without any length is a range."""
    for loc, moment in (("from", start), ("to", end)):
        if moment.tzinfo is None:
            raise InvalidWindow(loc, "must say its offset from UTC")
        if not _EARLIEST <= moment < _LATEST:
            raise InvalidWindow(loc, "must lie between the years 1900 and 2199")
    if end < start:
        raise InvalidWindow("to", "lies before from")


def zone(name: str) -> ZoneInfo:
    """Raises InvalidWindow."""
    if name not in _NAMES:
        raise InvalidWindow("timezone", f"{name[:60]!r} is not an IANA time zone")
    return ZoneInfo(name)


def windows(start: datetime, end: datetime, granularity: Granularity, tz: ZoneInfo) -> list[Window]:
    """All windows that overlap [start, end), in order; without a granularity the range is one, be it empty.

    Raises InvalidWindow when there would be too many.
    """
    if granularity is Granularity.NONE:
        return [Window(start, end, start, end)]
    if end <= start:
        return []
    limit = MAX_MINUTES if granularity is Granularity.MINUTE else MAX_WINDOWS
    found: list[Window] = []
    opening = _floor(start, granularity, tz)
    while opening < end:
        if len(found) == limit:
            raise InvalidWindow("window", f"more than {limit:,} windows of a {granularity}; ask for a shorter range")
        closing = _next(opening, granularity, tz)
        # Where clocks go back over midnight, the day before goes on for a moment after the next one has begun.
        if closing > start:
            found.append(Window(opening, closing, max(opening, start), min(closing, end)))
        opening = closing
    return found


@dataclass(frozen=True, slots=True)
class Pieces:
    """A part of a window by where its answer comes from: whole UTC hours from rollups, the rest from raw events."""

    hours: tuple[datetime, datetime] | None
    raw: tuple[tuple[datetime, datetime], ...]


def pieces(first: datetime, last: datetime) -> Pieces:
    """Splits [first, last) into whole UTC hours and ragged ends."""
    opening, closing = _hour_up(first), hour_down(last)
    if opening >= closing:
        return Pieces(None, ((first, last),) if first < last else ())
    ragged = ((first, opening), (closing, last))
    return Pieces((opening, closing), tuple(edge for edge in ragged if edge[0] < edge[1]))


def hour_down(moment: datetime) -> datetime:
    """The UTC hour that an instant lies in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _hour_up(moment: datetime) -> datetime:
    floor = hour_down(moment)
    return floor if floor == moment else floor + timedelta(hours=1)


def _floor(moment: datetime, granularity: Granularity, tz: ZoneInfo) -> datetime:
    local = moment.astimezone(tz)
    if granularity in {Granularity.MINUTE, Granularity.HOUR}:
        # The distance to the last full local minute or hour is subtracted from the instant: a repeated local hour stays
        # two windows. Some zones change their clocks in the middle of a local hour; the change is a boundary there.
        into = timedelta(seconds=local.second, microseconds=local.microsecond)
        if granularity is Granularity.HOUR:
            into += timedelta(minutes=local.minute)
        full = moment.astimezone(UTC) - into
        return full if _offset(full, tz) == local.utcoffset() else _change(full, moment.astimezone(UTC), tz)
    day = local.date()
    if granularity is Granularity.WEEK:
        day -= timedelta(days=day.weekday())
    elif granularity is Granularity.MONTH:
        day = day.replace(day=1)
    return _midnight(day, tz)


def _next(opening: datetime, granularity: Granularity, tz: ZoneInfo) -> datetime:
    if granularity is Granularity.MINUTE:
        return opening + timedelta(minutes=1)
    if granularity is Granularity.HOUR:
        # Where clocks change by half an hour, a window after the change opens within a local hour, one before it ends.
        full = opening + timedelta(hours=1) - timedelta(minutes=opening.astimezone(tz).minute)
        return full if _offset(full, tz) == _offset(opening, tz) else _change(opening, full, tz)
    day = opening.astimezone(tz).date()
    if granularity is Granularity.DAY:
        day += timedelta(days=1)
    elif granularity is Granularity.WEEK:
        day += timedelta(days=7 - day.weekday())
    else:
        day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return _midnight(day, tz)


def _offset(moment: datetime, tz: ZoneInfo) -> timedelta | None:
    return moment.astimezone(tz).utcoffset()


def _change(before: datetime, after: datetime, tz: ZoneInfo) -> datetime:
    """The instant in (before, after] at which the offset of `before` ends, to the second."""
    seconds = range(1, int((after - before) / timedelta(seconds=1)) + 1)
    offset = _offset(before, tz)
    return before + timedelta(
        seconds=seconds[bisect_left(seconds, True, key=lambda n: _offset(before + timedelta(seconds=n), tz) != offset)]
    )


def _midnight(day: date, tz: ZoneInfo) -> datetime:
    """The first instant of a local day, in UTC: midnight, or the end of the gap where clocks jump over midnight."""
    naive = datetime.combine(day, time(), tzinfo=tz)
    # fold=0 in a gap reads the offset before the jump, which is the instant of the jump itself.
    return naive.astimezone(UTC)
