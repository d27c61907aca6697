"""What a meter's unit says of time: a value held for an hour is one value-hour, unless the unit says otherwise."""

from __future__ import annotations

from usage_service.domain.instants import DAY, HOUR

_LENGTHS = {"second": 1_000_000, "minute": 60_000_000, "hour": HOUR, "day": DAY, "week": 7 * DAY}
_CALENDAR = frozenset({"month", "quarter", "year"})


def microseconds_of(unit: str) -> int:
    """How long a value holds to be one unit: an hour unless the unit ends with another span, as `byte-seconds` does."""
    return _LENGTHS.get(_last_word(unit), HOUR)


def has_no_length(unit: str) -> bool:
    """Whether a unit ends with a span whose length the calendar decides."""
    return _last_word(unit) in _CALENDAR


def _last_word(unit: str) -> str:
    return unit.lower().replace("_", "-").replace(" ", "-").rpartition("-")[2].removesuffix("s")
