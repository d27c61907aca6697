"""The billing calendar of a subscription.

Boundaries fall on local midnights of the billing zone and are counted from the original anchor, never from the
previous boundary, so 31 Jan leads to 28 Feb and then to 31 Mar. Periods are half-open, [start, end), in UTC.
"""

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import count
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from billing_service.domain.errors import InvalidScheduleError
from billing_service.domain.money import EXACT


class Interval(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class Anchor(StrEnum):
    """Where periods begin: on the calendar's own boundaries, or on the day the subscription started."""

    CALENDAR = "calendar"
    ANNIVERSARY = "anniversary"


_DAYS = {Interval.DAY: 1, Interval.WEEK: 7}
_MONTHS = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.YEAR: 12}


@dataclass(frozen=True, slots=True)
class Period:
    """[start, end) in UTC. `days_used` of the `days_whole` days of the full period that it is a part of."""

    start: datetime
    end: datetime
    days_used: int
    days_whole: int

    @property
    def is_empty(self) -> bool:
        return self.start == self.end

    @property
    def share(self) -> Decimal:
        """The part of a whole period, by local calendar days; 1 for a whole one."""
        if self.days_used == self.days_whole:
            return Decimal(1)
        return EXACT.divide(Decimal(self.days_used), Decimal(self.days_whole))


def add_months(anchor: date, months: int) -> date:
    """`anchor` moved by `months`, on its own day of the month or the month's last."""
    index = anchor.year * 12 + anchor.month - 1 + months
    year, month = divmod(index, 12)
    return date(year, month + 1, min(anchor.day, monthrange(year, month + 1)[1]))


def zone_named(name: str) -> ZoneInfo:
    """The IANA zone `name`; raises InvalidScheduleError where there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidScheduleError(f"{name!r} is not an IANA time zone") from None


@dataclass(frozen=True, slots=True)
class Schedule:
    """The periods of one subscription, from the local day it starts to the local day it ends.

    Usage is rolled up by the hour in UTC, so `validated` refuses zones whose midnights are not whole hours there.
    """

    start_at: datetime
    interval: Interval
    zone: ZoneInfo
    anchor: Anchor = Anchor.ANNIVERSARY
    ends_at: datetime | None = None

    def validated(self) -> "Schedule":
        if self.ends_at is not None and self.ends_at <= self.start_at:
            raise InvalidScheduleError("a subscription ends after it starts")
        for day in (date(self.start_at.year, 1, 1), date(self.start_at.year, 7, 1)):
            if self._instant(day).minute:
                raise InvalidScheduleError(
                    f"midnight in {self.zone.key} is not a whole hour in UTC, where usage is kept"
                )
        return self

    @property
    def begins(self) -> datetime:
        """Where its first period does: the local midnight of the day it starts."""
        return self._instant(self.start_at.astimezone(self.zone).date())

    def periods(self) -> Iterator[Period]:
        """All periods in order; without end where the subscription has none. The first and the last may be partial."""
        first = self.start_at.astimezone(self.zone).date()
        last = self._last_day()
        for step in count():
            whole_from, whole_to = self._boundary(first, step), self._boundary(first, step + 1)
            day_from = max(whole_from, first)
            day_to = whole_to if last is None else min(whole_to, last)
            if day_to <= day_from:
                return
            yield Period(
                self._instant(day_from),
                self._instant(day_to),
                (day_to - day_from).days,
                (whole_to - whole_from).days,
            )
            if last is not None and last <= whole_to:
                return

    def period_at(self, instant: datetime) -> Period | None:
        """The period that holds `instant`; None before the start and after the end."""
        for period in self.periods():
            if instant < period.start:
                return None
            if instant < period.end:
                return period
        return None

    def _last_day(self) -> date | None:
        """The first day after the subscription: the day of a cancellation is used up."""
        if self.ends_at is None:
            return None
        local = self.ends_at.astimezone(self.zone)
        at_midnight = self._instant(local.date()) == self.ends_at
        return local.date() if at_midnight else local.date() + timedelta(days=1)

    def _boundary(self, first: date, step: int) -> date:
        base = first if self.anchor is Anchor.ANNIVERSARY else self._calendar_base(first)
        if self.interval in _DAYS:
            return base + timedelta(days=_DAYS[self.interval] * step)
        return add_months(base, _MONTHS[self.interval] * step)

    def _calendar_base(self, first: date) -> date:
        match self.interval:
            case Interval.DAY:
                return first
            case Interval.WEEK:
                return first - timedelta(days=first.weekday())
            case Interval.MONTH:
                return first.replace(day=1)
            case Interval.QUARTER:
                return date(first.year, first.month - (first.month - 1) % 3, 1)
            case Interval.YEAR:
                return date(first.year, 1, 1)

    def _instant(self, day: date) -> datetime:
        return datetime.combine(day, time(), tzinfo=self.zone).astimezone(UTC)


def closing_period(
    schedule: Schedule, *, now: datetime, as_of: datetime, grace: timedelta, billed: frozenset[datetime]
) -> Period | None:
    """A period of no length, now, for what comes late to a subscription that is over: its last period is in `billed`.

    None while the subscription goes on, or another period is to be billed first.
    """
    if schedule.ends_at is None:
        return None
    *_, last = schedule.periods()
    if last.start not in billed or last.end > as_of or last.end + grace > now:
        return None
    return Period(now, now, 0, last.days_whole)


def billed_usage(period: Period, bill_from: datetime | None) -> tuple[datetime, datetime]:
    """The part of `period` whose usage is billed, [start, end): none of it lies before `bill_from`."""
    if bill_from is None or bill_from <= period.start:
        return period.start, period.end
    return min(bill_from, period.end), period.end


def due_periods(
    schedule: Schedule,
    *,
    now: datetime,
    as_of: datetime,
    grace: timedelta,
    billed: frozenset[datetime],
    bill_from: datetime | None = None,
) -> list[Period]:
    """The periods to bill: ended at or before `as_of`, their grace passed at `now`, their start not in `billed`.

    `now` is the tenant's own clock. A period that ends exactly at `as_of` is due, one that ends by `bill_from` is not.
    """
    due: list[Period] = []
    for period in schedule.periods():
        if period.end > as_of or period.end + grace > now:
            break
        if period.start not in billed and (bill_from is None or period.end > bill_from):
            due.append(period)
    return due
