"""A tenant's quota through time: what its periods are, and what each of them gives.

What is changed holds for the whole of the period that runs. A period that is over keeps its bounds and what it gave,
left and owed, so that nobody gets back what was used up in it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from usage_service.domain.entitlement_periods import Cycle, Interval, UsagePeriod
from usage_service.domain.errors import InvalidGrant
from usage_service.domain.grants import ZERO, Grant

MAX_ALERTS: Final = 10
# A Monday, the first of a month and of a year: periods counted from it are those of the calendar.
_CALENDAR: Final = datetime(2001, 1, 1)  # noqa: DTZ001 (local midnight, in whichever zone)
_INSTANT: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What periods give and leave to the next ones, from an instant on at which one of them begins.

    `amount` None: only grants give something.
    """

    since: datetime
    amount: Decimal | None
    cycle: Cycle
    pays_overage: bool = True
    preserve_overage: bool = False
    rollover_max: Decimal = ZERO
    """What of an unused limit the next period has too, until its end; it burns before that period's own."""
    refill: Interval | None = None
    """How often within the period the limit is filled up again."""
    resets: bool = False
    """Whether a period begins at `since` whatever the cycle of the limit before says: it was another, or was reset."""

    @property
    def refills(self) -> Cycle | None:
        return None if self.refill is None else Cycle(self.refill, self.cycle.anchor, self.cycle.zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A tenant's metered entitlement: limits, one at least and the oldest first, and grants beside them.

    `cycle` is as it was put; a reset may have moved that of the limits.
    """

    cycle: Cycle
    limits: Sequence[Limit]
    grants: Sequence[Grant] = ()
    hard: bool = True
    alerts: Sequence[Decimal] = ()

    @property
    def since(self) -> datetime:
        """Usage counts from here on."""
        return self.limits[0].since

    @property
    def limit(self) -> Limit:
        """The last one that was put."""
        return self.limits[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaTerms:
    """What a quota is to be. `time_zone` is where periods are counted: those of the calendar, or from `anchor` on."""

    limit: Decimal | None
    period: Interval
    hard: bool
    alerts: tuple[Decimal, ...]
    time_zone: ZoneInfo
    anchor: datetime | None = None
    pays_overage: bool = True
    preserve_overage: bool = False
    rollover_max: Decimal = ZERO
    refill: Interval | None = None

    @property
    def cycle(self) -> Cycle:
        anchor = self.anchor or _CALENDAR.replace(tzinfo=self.time_zone)
        return Cycle(self.period, anchor.astimezone(UTC), self.time_zone)


def check_quota(terms: QuotaTerms) -> None:
    """Raises InvalidGrant with the field and the reason."""
    alerts = terms.alerts
    if terms.limit is not None and terms.limit < 0:
        raise InvalidGrant("limit", "zero or more")
    if terms.rollover_max < 0:
        raise InvalidGrant("rollover_max", "zero or more")
    if terms.rollover_max and (terms.period is Interval.HOUR or terms.refill is not None):
        raise InvalidGrant("rollover_max", "not with periods of an hour, nor with refill")
    if len(alerts) > MAX_ALERTS or len(set(alerts)) != len(alerts):
        raise InvalidGrant("alerts", f"at most {MAX_ALERTS} different fractions")
    if any(not 0 < each <= MAX_ALERTS for each in alerts):
        raise InvalidGrant("alerts", 'fractions of the limit, as in "0.8": more than 0 and at most 10')


def renew(known: Quota | None, terms: QuotaTerms, now: datetime) -> Quota:
    """The quota under these terms, for the whole of the period that runs; periods that are over stay as they were."""
    cycle = terms.cycle
    given = Limit(
        since=cycle.period_at(now).start,
        amount=terms.limit,
        cycle=cycle,
        pays_overage=terms.pays_overage,
        preserve_overage=terms.preserve_overage,
        rollover_max=terms.rollover_max,
        refill=terms.refill,
    )
    return Quota(
        cycle=cycle,
        limits=(given,) if known is None else _limits_with(known, given, now),
        grants=() if known is None else known.grants,
        hard=terms.hard,
        alerts=terms.alerts,
    )


def restart(quota: Quota, at: datetime, now: datetime, *, retain_anchor: bool) -> Quota:
    """The quota whose period ends at an instant, and the next one begins: as at any end of a period, grants roll over
    and overage is dropped or preserved. Later periods are counted from there, or as before with the anchor retained.

    A period that begins there already is left as it is. Raises InvalidGrant for an instant that is not of the period
    that runs.
    """
    running, limit = next(periods_back(quota, now))
    if not running.start <= at <= now:
        raise InvalidGrant("at", "an instant of the period that runs, up to now")
    if at == running.start:
        return quota
    cycle = limit.cycle if retain_anchor else replace(limit.cycle, anchor=at)
    return replace(quota, limits=_followed(quota.limits, replace(limit, since=at, cycle=cycle, resets=True)))


def periods_back(quota: Quota, moment: datetime) -> Iterator[tuple[UsagePeriod, Limit]]:
    """The period of an instant and those before it, the last one first, each with its limit.

    The first one begins where the quota does, and others where a cycle has followed another, or where it was reset.
    """
    moment = max(moment, quota.since)
    later: datetime | None = None
    for limits in reversed(_by_cycle(quota.limits)):
        begin, cycle = limits[0].since, limits[0].cycle
        if begin <= moment:
            end = cycle.period_at(moment).end
            end = end if later is None else min(end, later)
            for occurrence in cycle.back_from(moment):
                start = max(occurrence, begin)
                yield UsagePeriod(start, end), _limit_of(limits, end)
                if start == begin:
                    break
                end = start
            moment = begin - _INSTANT
        later = begin


def period_at(quota: Quota, moment: datetime) -> UsagePeriod:
    """The usage period of an instant."""
    period, _ = next(periods_back(quota, moment))
    return period


def next_turn(quota: Quota, now: datetime) -> datetime:
    """When the value changes next without any usage: a reset, or a grant that begins, ends or is refilled."""
    period, limit = next(periods_back(quota, now))
    turns = [period.end]
    if limit.refills is not None:
        turns.append(limit.refills.period_at(now).end)
    for grant in quota.grants:
        turns += [moment for moment in (grant.effective_at, grant.ends_at) if moment > now]
        if grant.recurrence is not None and grant.active_at(now):
            turns.append(grant.recurrence.period_at(now).end)
    return min(turns)


def _limits_with(known: Quota, given: Limit, now: datetime) -> Sequence[Limit]:
    running, last = period_at(known, now), known.limit
    if given.cycle == known.cycle:
        given = replace(
            given, since=running.start, cycle=last.cycle, resets=last.resets and last.since == running.start
        )
        same = given == replace(last, since=given.since, resets=given.resets)
        return known.limits if same else _followed(known.limits, given)
    since = given.since
    if last.preserve_overage or last.rollover_max or any(grant.ends_at > now for grant in known.grants):
        # Something reaches from periods that are over into this one: they cannot be counted anew in longer ones.
        since = max(since, running.start)
    return _followed(known.limits, replace(given, since=since, resets=True))


def _followed(limits: Sequence[Limit], given: Limit) -> Sequence[Limit]:
    return (*(limit for limit in limits if limit.since < given.since), given)


def _by_cycle(limits: Sequence[Limit]) -> list[list[Limit]]:
    """Limits whose periods follow one another in one cycle."""
    found: list[list[Limit]] = []
    for limit in limits:
        if found and not limit.resets:
            found[-1].append(limit)
        else:
            found.append([limit])
    return found


def _limit_of(limits: Sequence[Limit], end: datetime) -> Limit:
    """The limit of the period that ends at an instant: the last one that was put before its end."""
    return limits[max(0, bisect_left(limits, end, key=lambda limit: limit.since) - 1)]
