"""Usage periods and the rhythm of recurring grants: counted from an anchor, on local dates (rule 16).

An occurrence is always the anchor moved by whole intervals, never the previous occurrence moved by one: 31 Jan leads to
28 Feb and then to 31 Mar. The local time of day is the anchor's; on the days of a change of clocks a day has 23 or 25
hours.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import count
from typing import Final
from zoneinfo import ZoneInfo

_UTC: Final = ZoneInfo("UTC")


class Interval(StrEnum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


_LENGTH: Final = {
    Interval.HOUR: timedelta(hours=1),
    Interval.DAY: timedelta(days=1),
    Interval.WEEK: timedelta(days=7),
    Interval.MONTH: timedelta(days=30.436875),  # on average; only to guess an occurrence's number
    Interval.YEAR: timedelta(days=365.2425),
}


@dataclass(frozen=True, slots=True)
class UsagePeriod:
    """[start, end)."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Cycle:
    """An endless row of instants, before the anchor as well as after it. `every` is how many intervals lie between."""

    interval: Interval
    anchor: datetime
    zone: ZoneInfo = _UTC
    every: int = 1

    def period_at(self, moment: datetime) -> UsagePeriod:
        """The period that holds an instant."""
        number = self._number_at(moment)
        return UsagePeriod(self._occurrence(number), self._occurrence(number + 1))

    def occurrences(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The instants in (after, until], in order."""
        for number in count(self._number_at(after) + 1):
            occurrence = self._occurrence(number)
            if occurrence > until:
                return
            yield occurrence

    def back_from(self, moment: datetime) -> Iterator[datetime]:
        """The instants at or before a moment, the last one first, without end."""
        for number in count(self._number_at(moment), -1):
            yield self._occurrence(number)

    def _number_at(self, moment: datetime) -> int:
        """The number of the last occurrence at or before an instant."""
        number = (moment - self.anchor) // (_LENGTH[self.interval] * self.every)
        while self._occurrence(number) > moment:
            number -= 1
        while self._occurrence(number + 1) <= moment:
            number += 1
        return number

    def _occurrence(self, number: int) -> datetime:
        return _occurrence(self, number)


# The quotas of nearly all tenants have the periods of the calendar.
@lru_cache(maxsize=65_536)
def _occurrence(cycle: Cycle, number: int) -> datetime:
    steps = number * cycle.every
    if cycle.interval is Interval.HOUR:
        return cycle.anchor.astimezone(UTC) + timedelta(hours=steps)
    local = cycle.anchor.astimezone(cycle.zone)
    match cycle.interval:
        case Interval.DAY:
            day = local.date() + timedelta(days=steps)
        case Interval.WEEK:
            day = local.date() + timedelta(weeks=steps)
        case Interval.MONTH:
            day = _add_months(local.date(), steps)
        case _:
            day = _add_months(local.date(), 12 * steps)
    return datetime.combine(day, local.time(), tzinfo=cycle.zone).astimezone(UTC)


def _add_months(anchor: date, months: int) -> date:
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    return date(year, month + 1, min(anchor.day, monthrange(year, month + 1)[1]))
