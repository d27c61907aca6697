"""Instants as callers may write them."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)


def _written(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError("must be an RFC 3339 time in a string")  # noqa: TRY004 - pydantic reports ValueError
    return value


def _in_range(instant: datetime) -> datetime:
    # Both ends of what a calendar can hold overflow in another zone.
    if not _EARLIEST <= instant < _LATEST:
        raise ValueError("must lie between the years 2000 and 2199")
    return instant


Instant = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_in_range)]
"""A moment with its offset from UTC, in years that calendars are computed for."""
