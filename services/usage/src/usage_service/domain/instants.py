"""Instants as microseconds since 2000-01-01 UTC, which is also how PostgreSQL stores them.

Whole numbers make hours, days and comparisons cheap and exact on the hot path.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
EPOCH_DAY = date(2000, 1, 1)
HOUR = 3_600_000_000
DAY = 24 * HOUR
UNIX_EPOCH_MILLISECONDS = 946_684_800_000  # of 2000-01-01, for the milliseconds that Kafka stamps

_TOO_PRECISE = re.compile(r"(\.\d{6})\d+", re.ASCII)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(instant: datetime) -> int:
    """Of an aware datetime, exactly."""
    elapsed = instant - EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds


def instant(value: int) -> datetime:
    return EPOCH + value * _MICROSECOND


def day_of(number: int) -> date:
    """The date of a day number (0 is 2000-01-01)."""
    return EPOCH_DAY + timedelta(days=number)


def day_number(day: date) -> int:
    return (day - EPOCH_DAY).days


def cut_to_microseconds(text: str) -> str:
    """An RFC 3339 time without the digits after the sixth: more are cut everywhere, never rounded."""
    return _TOO_PRECISE.sub(r"\1", text)


def rfc3339(moment: datetime) -> str:
    """UTC with `Z` and as many digits as there are."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
