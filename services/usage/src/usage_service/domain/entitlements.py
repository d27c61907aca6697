"""What a tenant may use: features, quotas, and the value that answers whether there is access now."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from enum import StrEnum
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from usage_service.domain.entitlement_burndown import BurnDown, Snapshot, Terms, boundaries, burn_down
from usage_service.domain.entitlement_periods import Cycle, Interval, UsagePeriod
from usage_service.domain.errors import InvalidGrant
from usage_service.domain.grants import ZERO, Grant
from usage_service.domain.meters import Aggregation
from usage_service.domain.quantities import EXACT

MAX_ALERTS: Final = 10
MAX_GRANTS: Final = 1_000  # of one tenant and feature: all of them are read for every balance
_FEATURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_LIMIT: Final = "limit@"
# A Monday, the first of a month and of a year: periods counted from it are those of the calendar.
_CALENDAR: Final = datetime(2001, 1, 1)  # noqa: DTZ001 (local midnight, in whichever zone)

ADDITIVE: Final = frozenset({Aggregation.COUNT, Aggregation.SUM, Aggregation.TIME_WEIGHTED})
"""The usage of two segments is the sum of their figures."""

CUMULATIVE: Final = frozenset({Aggregation.MAX, Aggregation.LATEST, Aggregation.UNIQUE_COUNT})
"""The usage of a segment is by how much it moves the figure of the period so far: what two segments both saw is used
once."""


class FeatureKind(StrEnum):
    BOOLEAN = "boolean"
    STATIC = "static"
    METERED = "metered"


@dataclass(frozen=True, slots=True)
class Limit:
    """What a period gives, from an instant on. None: only grants give something."""

    since: datetime
    amount: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A tenant's metered entitlement: a limit that each period gives anew, and grants beside it."""

    cycle: Cycle
    since: datetime
    limits: Sequence[Limit] = ()
    grants: Sequence[Grant] = ()
    hard: bool = True
    pays_overage: bool = True
    preserve_overage: bool = False
    rollover_max: Decimal = ZERO
    """What of an unused limit the next period has too, until its end; it burns before that period's own."""
    refill: Interval | None = None
    """How often within the period the limit is filled up again."""
    alerts: Sequence[Decimal] = ()

    @property
    def refills(self) -> Cycle | None:
        return None if self.refill is None else Cycle(self.refill, self.cycle.anchor, self.cycle.zone)


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


def renew(known: Quota | None, terms: QuotaTerms, now: datetime) -> Quota:
    """The quota under these terms, for the whole of the period that runs; periods that are over keep their limit.

    Usage counts from where that period begins, or from where it did: grants that are active keep their past.
    """
    cycle = terms.cycle
    since = cycle.period_at(now).start
    if known is not None and (known.cycle == cycle or any(grant.ends_at > now for grant in known.grants)):
        since = known.since
    limits = () if known is None else tuple(known.limits)
    if not limits or limits[-1].amount != terms.limit:
        limits = (*limits, Limit(now if limits else since, terms.limit))
    return Quota(
        cycle=cycle,
        since=since,
        limits=limits,
        grants=() if known is None else known.grants,
        hard=terms.hard,
        pays_overage=terms.pays_overage,
        preserve_overage=terms.preserve_overage,
        rollover_max=terms.rollover_max,
        refill=terms.refill,
        alerts=terms.alerts,
    )


@dataclass(frozen=True, slots=True)
class Course:
    """The stretch of time that has to be looked at for a balance, cut where the usage has to be known."""

    terms: Terms
    opening: Snapshot
    until: datetime
    segments: Sequence[UsagePeriod]


@dataclass(frozen=True, slots=True)
class Value:
    """`available` is what the period has to give, used or not; alerts are fractions of it."""

    has_access: bool
    balance: Decimal
    usage: Decimal
    overage: Decimal
    available: Decimal
    period: UsagePeriod


def check_feature(slug: str, kind: FeatureKind, meter: str | None) -> None:
    """Raises InvalidGrant with the field and the reason."""
    if not _FEATURE.fullmatch(slug):
        raise InvalidGrant("slug", "lower-case letters, digits, -, _ and ., at most 63 characters")
    if (kind is FeatureKind.METERED) != (meter is not None):
        raise InvalidGrant("meter", "a metered feature has a meter, no other has")


def check_aggregation(aggregation: Aggregation) -> None:
    """Raises InvalidGrant for a meter whose figure cannot be used up."""
    if aggregation not in ADDITIVE | CUMULATIVE:
        raise InvalidGrant("meter", f"the {aggregation} of a meter is no amount that is used up")


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


def course_of(quota: Quota, now: datetime, *, just_before: bool = False) -> Course:
    """What has to be looked at for the balance at `now`; `just_before` what happens there, for that of a period's end.

    It starts at the last reset that nothing outlives, so that a plain limit looks at one period however old it is.
    """
    now = max(now, quota.since)
    starts = _starts(quota, now, just_before=just_before)
    start = starts[0]
    grants = [grant for grant in quota.grants if grant.ends_at > start and grant.effective_at <= now]
    terms = Terms(
        grants=[*_limit_grants(quota, starts), *grants],
        resets=starts[1:],
        pays_overage=quota.pays_overage,
        preserve_overage=quota.preserve_overage,
    )
    cuts = boundaries(terms, start, now)
    return Course(terms, _opening(terms.grants, start), now, [UsagePeriod(*span) for span in pairwise(cuts)])


def follow(course: Course, usage: Sequence[Decimal]) -> BurnDown:
    """The burn-down of a course; `usage` has a number for each of its segments."""
    return burn_down(course.terms, course.opening, course.until, usage)


def value_of(quota: Quota, snapshot: Snapshot, period: UsagePeriod) -> Value:
    """What a state in a period means. A soft quota gives access whatever is left."""
    return Value(
        has_access=not quota.hard or snapshot.balance > 0,
        balance=snapshot.balance,
        usage=snapshot.usage,
        overage=snapshot.overage,
        available=snapshot.available,
        period=period,
    )


def period_at(quota: Quota, moment: datetime) -> UsagePeriod:
    """The usage period of an instant; the first one begins where the quota does."""
    period = quota.cycle.period_at(moment)
    return UsagePeriod(max(period.start, quota.since), period.end)


def next_turn(quota: Quota, now: datetime) -> datetime:
    """When the value changes next without any usage: a reset, or a grant that begins, ends or is refilled."""
    turns = [quota.cycle.period_at(now).end]
    if quota.refills is not None:
        turns.append(quota.refills.period_at(now).end)
    for grant in quota.grants:
        turns += [moment for moment in (grant.effective_at, grant.ends_at) if moment > now]
        if grant.recurrence is not None and grant.active_at(now):
            turns.append(grant.recurrence.period_at(now).end)
    return min(turns)


def crossed(quota: Quota, value: Value, *, within: Decimal = ZERO) -> list[Decimal]:
    """The alerts whose fraction of what is available is used, lowest first; `within` is how much of it may be missing,
    as a fraction.
    """
    if value.usage <= 0:
        return []
    with localcontext(EXACT):
        return sorted(each for each in quota.alerts if value.usage >= each * value.available * (1 - within))


def _starts(quota: Quota, now: datetime, *, just_before: bool) -> list[datetime]:
    """The starts of the periods to look at, from the last one that begins afresh to the one of `now`."""
    starts: list[datetime] = []
    # Backwards: a quota of hours that is years old has tens of thousands of them, and nearly always needs one.
    for start in quota.cycle.back_from(now):
        if just_before and start == now > quota.since:
            continue
        starts.append(max(start, quota.since))
        if start <= quota.since or _starts_afresh(quota, start):
            break
    return starts[::-1]


def _starts_afresh(quota: Quota, moment: datetime) -> bool:
    if quota.preserve_overage or quota.rollover_max:
        return False
    return not any(
        (grant.carries or grant.rollover_min > 0) and grant.effective_at < moment < grant.ends_at
        for grant in quota.grants
    )


def _opening(grants: Sequence[Grant], start: datetime) -> Snapshot:
    """The state at a reset that nothing outlives: whole is what begins or is refilled there."""
    return Snapshot(at=start, left={grant.id: grant.amount if grant.fills_at(start) else ZERO for grant in grants})


def _limit_grants(quota: Quota, starts: Sequence[datetime]) -> list[Grant]:
    """The limit of each period as a grant that burns first; it ends with the period, or with the next one."""
    grants = []
    for start in starts:
        end = quota.cycle.period_at(start).end
        amount = _limit_of(quota.limits, end)
        if amount:
            grants.append(
                Grant(
                    id=f"{_LIMIT}{start.isoformat()}",
                    amount=amount,
                    effective_at=start,
                    created_at=start,
                    expires_at=quota.cycle.period_at(end).end if quota.rollover_max else end,
                    priority=-1,
                    rollover_max=quota.rollover_max,
                    recurrence=quota.refills,
                )
            )
    return grants


def _limit_of(limits: Sequence[Limit], end: datetime) -> Decimal | None:
    """The limit of the period that ends at an instant: the last that was set before its end, for the whole period."""
    known = [limit for limit in limits if limit.since < end]
    return (known[-1] if known else limits[0]).amount if limits else None
