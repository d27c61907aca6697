"""Instants as callers may write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

# Far from both ends of the calendar, which a zone would step over.
_EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")


def _written(value: object) -> object:
    # pydantic would take a number, also in a text, for seconds since 1970.
    if not isinstance(value, str) or not _DATE.match(value):
        raise ValueError("must be an RFC 3339 time such as 2026-11-01T00:00:00Z")
    return value


def _in_the_calendar(moment: datetime) -> datetime:
    if not _EARLIEST <= moment < _LATEST:
        raise ValueError("must lie between the years 1900 and 2199")
    return moment


Instant = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_in_the_calendar)]
"""A moment with its offset from UTC, in years that calendars are computed for."""
