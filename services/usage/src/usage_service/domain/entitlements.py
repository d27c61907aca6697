"""What a tenant may use: features, quotas, and the value that answers whether there is access now."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from enum import StrEnum
from itertools import pairwise
from typing import Final

from usage_service.domain.entitlement_burndown import (
    BurnDown,
    Reset,
    Snapshot,
    Standing,
    Terms,
    boundaries,
    burn_down,
)
from usage_service.domain.entitlement_periods import UsagePeriod
from usage_service.domain.errors import InvalidGrant
from usage_service.domain.grants import ZERO, Grant
from usage_service.domain.meters import Aggregation
from usage_service.domain.quantities import EXACT
from usage_service.domain.quotas import Limit, Quota, periods_back

MAX_GRANTS: Final = 1_000  # of one tenant and feature that are not over: all of them are read for every balance
_FEATURE: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_LIMIT: Final = "limit@"
_INSTANT: Final = timedelta(microseconds=1)

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
class Course:
    """The stretch of time that has to be looked at for a balance, cut where the usage has to be known."""

    terms: Terms
    opening: Snapshot
    until: datetime
    segments: Sequence[UsagePeriod]
    periods: Sequence[UsagePeriod]
    """Those that are looked at; the last one runs at `until`, or ends there."""


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


def course_of(quota: Quota, until: datetime, *, back_to: datetime | None = None) -> Course:
    """What has to be looked at for the balance just before an instant, and for those of the periods since `back_to`.

    It starts at the last reset that nothing outlives, so that a plain limit looks at one period however old it is.
    """
    until = max(until, quota.since + _INSTANT)
    looked_at: list[tuple[UsagePeriod, Limit]] = []
    carriers = sorted((grant for grant in quota.grants if grant.carries), key=lambda grant: grant.ends_at)
    for period, limit in periods_back(quota, until - _INSTANT):
        wanted = not looked_at or (back_to is not None and back_to < period.end)
        if not (wanted or limit.preserve_overage or limit.rollover_max or _outlived(carriers, period.end)):
            break
        looked_at.append((period, limit))
    looked_at.reverse()
    periods, limits = [period for period, _ in looked_at], [limit for _, limit in looked_at]
    start = periods[0].start
    grants = [grant for grant in quota.grants if grant.ends_at > start and grant.effective_at < until]
    terms = Terms(
        grants=[*_limit_grants(periods, limits), *grants],
        resets=[
            Reset(period.start, preserves_overage=before.preserve_overage, pays_overage=limit.pays_overage)
            for (_, before), (period, limit) in pairwise(looked_at)
        ],
        pays_overage=limits[0].pays_overage,
    )
    cuts = boundaries(terms, start, until)
    segments = [UsagePeriod(*span) for span in pairwise(cuts)]
    return Course(terms, _opening(terms.grants, start), until, segments, periods)


def follow(course: Course, usage: Sequence[Decimal]) -> BurnDown:
    """The burn-down of a course; `usage` has a number for each of its segments."""
    return burn_down(course.terms, course.opening, course.until, usage)


def values_of(quota: Quota, course: Course, burnt: BurnDown) -> list[Value]:
    """What each period of a course has come to; the last one is the period at its end."""
    standings = [*burnt.ended, burnt.closing.standing]
    return [_value(quota, standing, period) for standing, period in zip(standings, course.periods, strict=True)]


def crossed(quota: Quota, value: Value, *, within: Decimal = ZERO) -> list[Decimal]:
    """The alerts whose fraction of what is available is used, lowest first; `within` is how much of it may be missing,
    as a fraction.
    """
    if value.usage <= 0:
        return []
    with localcontext(EXACT):
        return sorted(each for each in quota.alerts if value.usage >= each * value.available * (1 - within))


def _value(quota: Quota, standing: Standing, period: UsagePeriod) -> Value:
    """A soft quota gives access whatever is left."""
    return Value(
        has_access=not quota.hard or standing.balance > 0,
        balance=standing.balance,
        usage=standing.usage,
        overage=standing.overage,
        available=standing.available,
        period=period,
    )


def _outlived(carriers: list[Grant], moment: datetime) -> bool:
    """Whether a grant begins before an instant and ends after it: of those by their end, from the last instant back."""
    while carriers and carriers[-1].effective_at >= moment:
        carriers.pop()
    return bool(carriers) and moment < carriers[-1].ends_at


def _opening(grants: Sequence[Grant], start: datetime) -> Snapshot:
    """The state at a reset that nothing outlives: whole is what begins or is refilled there."""
    return Snapshot(at=start, left={grant.id: grant.amount if grant.fills_at(start) else ZERO for grant in grants})


def _limit_grants(periods: Sequence[UsagePeriod], limits: Sequence[Limit]) -> list[Grant]:
    """The limit of each period as a grant that burns first; it ends with the period, or with the next one."""
    grants = []
    for number, (period, limit) in enumerate(zip(periods, limits, strict=True)):
        if not limit.amount:
            continue
        expires_at = period.end
        if limit.rollover_max:
            following = periods[number + 1 : number + 2]
            expires_at = following[0].end if following else limit.cycle.period_at(period.end).end
        grants.append(
            Grant(
                id=f"{_LIMIT}{period.start.isoformat()}",
                amount=limit.amount,
                effective_at=period.start,
                created_at=period.start,
                expires_at=expires_at,
                priority=-1,
                rollover_max=limit.rollover_max,
                recurrence=limit.refills,
            )
        )
    return grants
