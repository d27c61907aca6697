"""Lines of files that others wrote, read as usage: access logs in combined format, and times as exports have them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

# The first '] "' of a line ends its time, so a line is read in one way or not at all.
_LOG_LINE = re.compile(
    r'(?P<address>[^ ]+) (?:(?!\] ").)*'
    r"\[(?P<day>[0-9]{2})/(?P<month>[A-Z][a-z]{2})/(?P<year>[0-9]{4}):(?P<clock>[0-9]{2}:[0-9]{2}:[0-9]{2})"
    r' (?P<sign>[+-])(?P<hours>[0-9]{2})(?P<minutes>[0-9]{2})\] "(?P<request>(?:[^"\\]|\\.)*)"'
    r" (?P<status>[0-9]{3}) (?P<size>[0-9]{1,38}|-)(?: |$)"
)
_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: n for n, name in enumerate(_MONTH_NAMES, start=1)}
_TIMESTAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?(Z|[+-][0-9:]+)?")


class UnreadableLine(ValueError):
    """One line cannot be read; the text says which part."""


@dataclass(frozen=True, slots=True)
class AccessLine:
    """A request as an access log tells it; `time` is in UTC, and `-` is a size of 0."""

    address: str
    time: datetime
    method: str
    path: str
    status: int
    bytes: int


def read_access_line(line: str) -> AccessLine:
    """A line of the common or the combined format, without its end.

    What stands behind the size, such as a user agent, may be anything. Raises UnreadableLine.
    """
    matched = _LOG_LINE.match(line)
    if matched is None:
        raise UnreadableLine("request, status or size cannot be read")
    words = matched["request"].split()
    if len(words) < 2 or "\0" in matched["request"]:
        raise UnreadableLine("the request has no method and path")
    size = 0 if matched["size"] == "-" else int(matched["size"])
    return AccessLine(matched["address"], _log_time(matched), words[0], words[1], int(matched["status"]), size)


def read_timestamp(text: str) -> datetime:
    """UTC unless it names an offset; digits past microseconds are cut, not rounded. Raises UnreadableLine."""
    matched = _TIMESTAMP.fullmatch(text)
    if matched is None:
        raise UnreadableLine("the time cannot be read")
    day, clock, fraction, zone = matched.groups()
    try:
        return datetime.fromisoformat(f"{day}T{clock}.{(fraction or '')[:6]:0<6}{zone or 'Z'}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise UnreadableLine("the time cannot be read") from None


def _log_time(matched: re.Match[str]) -> datetime:
    offset = timedelta(hours=int(matched["hours"]), minutes=int(matched["minutes"]))
    zone = timezone(-offset if matched["sign"] == "-" else offset)
    hour, minute, second = map(int, matched["clock"].split(":"))
    try:
        local = datetime(
            int(matched["year"]), _MONTHS[matched["month"]], int(matched["day"]), hour, minute, second, tzinfo=zone
        )
        return local.astimezone(UTC)
    except (ValueError, KeyError, OverflowError):
        raise UnreadableLine("the time cannot be read") from None
