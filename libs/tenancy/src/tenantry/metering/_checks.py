"""What the usage service would not count, refused where it is recorded: behind the spool nobody hears of it."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isfinite
from types import NoneType
from typing import Any, Final

import msgspec

_MAX_TYPE: Final = 255
_CORRECTION: Final = "tenantry.correction"
_FUTURE: Final = timedelta(minutes=10)
_FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2200, 1, 1, tzinfo=UTC)

_MAX_DIGITS: Final = 38
_MIN_EXPONENT, _MAX_EXPONENT = -18, 20
_TOO_LARGE: Final = 10**_MAX_DIGITS
_LAST_DIGIT: Final = Decimal(1).scaleb(_MIN_EXPONENT)
_SMALL: Final = 10**18
_PLAIN: Final = frozenset({str, bool, NoneType})
# The escape of NUL, and not an escaped backslash before plain text.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def check_type(event_type: str) -> None:
    """Raises ValueError."""
    if not 0 < len(event_type) <= _MAX_TYPE:
        raise ValueError(f"the type of an event has 1 to {_MAX_TYPE} characters")
    if event_type == _CORRECTION:
        raise ValueError(f"{_CORRECTION} is kept for corrections")


def check_time(time: datetime, *, now: datetime | None, max_age: timedelta | None) -> None:
    """`now` None is of a tenant whose clock jumps; `max_age` None sets no age. Raises ValueError."""
    if time.tzinfo is None:
        raise ValueError("the time of an event says its offset from UTC")
    if not _FIRST <= time < _LAST:
        raise ValueError("events lie between 2000 and 2199")
    if now is not None and time > now + _FUTURE:
        raise ValueError("the time of an event lies more than 10 minutes in the future")
    if now is not None and max_age is not None and time < now - max_age:
        raise ValueError("the event is older than its tenant's events may be")


def countable(data: Mapping[str, Any]) -> Any:
    """The data with numbers that can be counted. Raises ValueError for those that cannot.

    A float says its value only so exactly, so it is written with 18 digits after the point at most; an int or a Decimal
    is exact, and is refused beyond 38 digits or an exponent outside of -18 to 20.
    """
    for value in data.values():
        kind = type(value)
        if kind not in _PLAIN and not (kind is int and -_SMALL < value < _SMALL):
            return _countable(msgspec.to_builtins(data, builtin_types=(Decimal,), str_keys=True))
    return data


def check_text(encoded: bytes) -> None:
    """Raises ValueError where a string of a JSON text holds NUL, which cannot be stored."""
    if b"\\u0000" in encoded and _NUL.search(encoded):
        raise ValueError("a string of an event contains NUL")


def _countable(value: Any) -> Any:
    match value:
        case bool():
            return value
        case dict():
            return {name: _countable(member) for name, member in value.items()}
        case list() | tuple():
            return [_countable(member) for member in value]
        case float():
            return _of_float(value)
        case int() if not -_TOO_LARGE < value < _TOO_LARGE:
            raise ValueError(f"a number has at most {_MAX_DIGITS} digits")
        case Decimal():
            _check_decimal(value)
    return value


def _of_float(value: float) -> float | int | Decimal:
    if 0.01 <= abs(value) < _SMALL or value == 0:  # 17 digits at most: neither end can be reached
        return value
    if not isfinite(value):
        raise ValueError("a number is finite")
    exact = Decimal(repr(value))
    if abs(exact) < 1:
        return exact.quantize(_LAST_DIGIT)
    if abs(exact) >= _TOO_LARGE:
        raise ValueError(f"a number has at most {_MAX_DIGITS} digits")
    return int(exact)


def _check_decimal(value: Decimal) -> None:
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError("a number is finite")  # noqa: TRY004 - a wrong value, not a wrong type
    if len(digits) > _MAX_DIGITS or not _MIN_EXPONENT <= exponent <= _MAX_EXPONENT:
        raise ValueError(
            f"a number has at most {_MAX_DIGITS} digits and an exponent from {_MIN_EXPONENT} to {_MAX_EXPONENT}"
        )
