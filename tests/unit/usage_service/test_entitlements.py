from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_service.domain.entitlement_burndown import Reset, Terms, boundaries, burn_down, opening
from usage_service.domain.entitlement_periods import Cycle, Interval, UsagePeriod
from usage_service.domain.entitlements import (
    FeatureKind,
    Value,
    check_aggregation,
    check_feature,
    course_of,
    crossed,
    follow,
    values_of,
)
from usage_service.domain.errors import InvalidGrant
from usage_service.domain.grants import ZERO, Grant
from usage_service.domain.meters import Aggregation
from usage_service.domain.quotas import Limit, Quota, QuotaTerms, check_quota, next_turn, period_at, renew
from usage_service.domain.windows import hour_down

BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 1, 31, 12, tzinfo=UTC)
MONTHLY = Cycle(Interval.MONTH, START)


def test_months_come_from_the_anchor():
    days = [moment.day for moment in MONTHLY.occurrences(START, START + timedelta(days=130))]
    assert days == [28, 31, 30, 31]
    leap = Cycle(Interval.YEAR, datetime(2024, 2, 29, tzinfo=UTC))
    assert leap.period_at(datetime(2024, 6, 1, tzinfo=UTC)).end == datetime(2025, 2, 28, tzinfo=UTC)
    assert leap.period_at(datetime(2028, 2, 29, tzinfo=UTC)).start == datetime(2028, 2, 29, tzinfo=UTC)


def test_days_are_local():
    daily = Cycle(Interval.DAY, datetime(2026, 3, 28, tzinfo=BERLIN), BERLIN)
    spring = daily.period_at(datetime(2026, 3, 29, 12, tzinfo=UTC))
    assert spring.end - spring.start == timedelta(hours=23)


@given(
    st.sampled_from(Interval),
    st.integers(1, 5),
    st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)),  # noqa: DTZ001 (hypothesis wants them naive)
    st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)),  # noqa: DTZ001
    st.sampled_from([BERLIN, ZoneInfo("UTC"), ZoneInfo("America/St_Johns")]),
)
def test_periods_follow_one_another(interval, every, anchor, moment, zone):
    cycle = Cycle(interval, anchor.replace(tzinfo=UTC), zone, every)
    moment = moment.replace(tzinfo=UTC)
    period = cycle.period_at(moment)
    assert period.start <= moment < period.end
    assert cycle.period_at(period.end).start == period.end
    assert next(cycle.occurrences(moment, period.end)) == period.end


def quota(**changes: object) -> Quota:
    """One limit of 100 from the start on; what is not of the quota is of that limit."""
    given = {name: changes.pop(name) for name in list(changes) if name in Quota.__dataclass_fields__}
    limit = {"since": START, "amount": Decimal(100), "cycle": MONTHLY, **changes}
    return Quota(**{"cycle": MONTHLY, "limits": (Limit(**limit),), **given})  # type: ignore[arg-type]


def terms(**changes: object) -> QuotaTerms:
    given = {"limit": Decimal(100), "period": Interval.MONTH, "hard": True, "alerts": ()}
    return QuotaTerms(**{**given, "time_zone": ZoneInfo("UTC"), "anchor": START, **changes})  # type: ignore[arg-type]


Usage = list[tuple[datetime, str]]


def values(quota: Quota, until: datetime, usage: Usage, back_to: datetime | None = None) -> list[Value]:
    course = course_of(quota, until, back_to=back_to)
    amounts = [sum((Decimal(n) for at, n in usage if each.start <= at < each.end), ZERO) for each in course.segments]
    return values_of(quota, course, follow(course, amounts))


def value(quota: Quota, now: datetime, usage: Usage) -> Value:
    return values(quota, hour_down(now) + timedelta(hours=1), usage)[-1]


def hour(number: int) -> datetime:
    return START + timedelta(hours=number)


def test_a_limit_gives_each_period_anew():
    seen = value(quota(), hour(5), [(hour(1), "30")])
    assert (seen.balance, seen.usage, seen.available, seen.has_access) == (70, 30, 100, True)
    over = value(quota(), hour(5), [(hour(1), "130")])
    assert (over.balance, over.overage, over.has_access) == (0, 30, False)
    assert value(quota(hard=False), hour(5), [(hour(1), "130")]).has_access
    march = datetime(2026, 3, 1, tzinfo=UTC)
    assert value(quota(), march, [(hour(1), "130")]).balance == 100


def test_a_raised_limit_holds_for_the_whole_period_and_not_for_the_ones_before():
    first = Limit(since=START, amount=Decimal(100), cycle=MONTHLY, preserve_overage=True)
    # As of before limits were put at the start of a period.
    raised = quota(limits=(first, replace(first, since=datetime(2026, 3, 5, tzinfo=UTC), amount=Decimal(300))))
    april = datetime(2026, 3, 6, tzinfo=UTC)
    usage = [(hour(1), "150"), (datetime(2026, 3, 1, tzinfo=UTC), "10")]
    assert value(raised, april, usage).balance == 300 - 50 - 10


def test_a_top_up_is_burnt_after_the_limit_and_outlives_the_period():
    topped = quota(grants=[Grant(id="top-up", amount=Decimal(50), effective_at=hour(2), created_at=hour(2))])
    assert value(topped, hour(5), [(hour(1), "110"), (hour(3), "15")]).balance == 25
    march = datetime(2026, 3, 1, tzinfo=UTC)
    assert value(topped, march, [(hour(1), "110"), (hour(3), "15")]).balance == 125


def test_a_grant_that_rolls_nothing_over_is_gone_after_its_period_unless_it_is_refilled():
    march = datetime(2026, 3, 1, tzinfo=UTC)
    bonus = Grant(id="bonus", amount=Decimal(50), effective_at=START, created_at=START, rollover_max=ZERO)
    assert value(quota(grants=[bonus]), march, []).balance == 100
    refilled = replace(bonus, recurrence=MONTHLY)
    assert value(quota(grants=[refilled]), march, []).balance == 150


def test_a_plain_limit_looks_at_one_period_only():
    later = START + timedelta(days=900)
    assert course_of(quota(), later).opening.at == MONTHLY.period_at(later).start
    carried = quota(grants=[Grant(id="g", amount=Decimal(1), effective_at=START, created_at=START)])
    assert course_of(carried, later).opening.at == START


months = st.integers(0, 24 * 100).map(hour)


@st.composite
def quotas(draw: st.DrawFn) -> Quota:
    return quota(
        preserve_overage=draw(st.booleans()),
        pays_overage=draw(st.booleans()),
        grants=[
            Grant(
                id=f"g{number}",
                amount=Decimal(draw(st.integers(1, 100))),
                effective_at=(effective := draw(months)),
                created_at=effective,
                expires_at=draw(st.none() | st.integers(1, 2000).map(lambda hours: effective + timedelta(hours=hours))),
                rollover_min=Decimal(least := draw(st.sampled_from([0, 0, 0, 7]))),
                rollover_max=draw(st.none() | st.sampled_from([Decimal(least), Decimal(20)])),
                recurrence=draw(st.none() | st.builds(Cycle, st.just(Interval.WEEK), months)),
            )
            for number in range(draw(st.integers(0, 3)))
        ],
    )


@given(quotas(), st.lists(st.tuples(months, st.integers(-50, 150).map(str)), max_size=10), months)
def test_what_is_not_looked_at_makes_no_difference(quota, usage, now):
    short = value(quota, now, usage)
    course = course_of(quota, now)
    ends = [quota.since, *quota.cycle.occurrences(quota.since, now)]
    limits = [
        Grant(
            id=f"limit@{start.isoformat()}", amount=Decimal(100), effective_at=start, created_at=start,
            expires_at=quota.cycle.period_at(start).end, priority=-1, rollover_max=ZERO,
        )
        for start in ends
    ]  # fmt: skip
    limit, until = quota.limit, now + timedelta(hours=1)
    terms = Terms(
        grants=[*limits, *quota.grants],
        resets=[
            Reset(at, preserves_overage=limit.preserve_overage, pays_overage=limit.pays_overage) for at in ends[1:]
        ],
        pays_overage=limit.pays_overage,
    )
    spans = pairwise(boundaries(terms, START, until))
    amounts = [sum((Decimal(n) for at, n in usage if start <= at < end), ZERO) for start, end in spans]
    whole = burn_down(terms, opening(terms.grants, START), until, amounts).closing.standing
    assert (whole.balance, whole.usage, whole.overage, whole.available) == (
        short.balance,
        short.usage,
        short.overage,
        short.available,
    )
    assert course.opening.at <= now


@given(quotas(), months)
def test_nothing_changes_before_the_next_turn_without_usage(quota, now):
    turn = next_turn(quota, now)
    assert turn > now
    just_before = turn - timedelta(microseconds=1)
    assert value(quota, just_before, []) == value(quota, now, [])


def test_the_first_period_begins_with_the_quota():
    late = quota(since=hour(50))
    assert period_at(late, hour(60)) == UsagePeriod(hour(50), MONTHLY.period_at(hour(60)).end)


def test_alerts_are_fractions_of_what_the_period_has_to_give():
    alerting = quota(alerts=[Decimal(1), Decimal("0.8")])
    for usage, seen in {"79.99": [], "80": ["0.8"], "100": ["0.8", "1"]}.items():
        assert crossed(alerting, value(alerting, hour(5), [(hour(1), usage)])) == [Decimal(each) for each in seen]
    nothing = quota(amount=None, alerts=alerting.alerts)
    assert crossed(nothing, value(nothing, hour(5), [])) == []


@pytest.mark.parametrize(
    ("limit", "alerts"), [(Decimal(-1), []), (None, [ZERO]), (None, [Decimal(1)] * 2), (None, [Decimal(11)])]
)
def test_quotas_that_cannot_be(limit, alerts):
    with pytest.raises(InvalidGrant):
        check_quota(terms(limit=limit, alerts=tuple(alerts)))


def test_an_unused_limit_goes_over_into_the_next_period_and_no_further():
    rolling = quota(rollover_max=Decimal(30))
    second, third = MONTHLY.period_at(START).end, MONTHLY.period_at(MONTHLY.period_at(START).end).end
    assert value(rolling, second + timedelta(hours=1), [(hour(1), "80")]).balance == 120
    assert value(rolling, second + timedelta(hours=1), [(hour(1), "20")]).balance == 130
    # What came over burns first, so that the limit of its own is whole for as long as possible.
    used = [(hour(1), "20"), (second, "30")]
    assert value(rolling, third + timedelta(hours=1), used).balance == 130
    assert value(rolling, third + timedelta(hours=1), [(hour(1), "20")]).balance == 130


def test_a_limit_may_be_filled_up_within_its_period():
    refilled = quota(refill=Interval.DAY)
    seen = value(refilled, START + timedelta(days=1, hours=2), [(hour(1), "70"), (hour(25), "10")])
    assert (seen.balance, seen.usage, seen.available) == (90, 80, 170)
    assert next_turn(refilled, hour(1)) == START + timedelta(days=1)


def test_terms_that_change_hold_for_the_period_that_runs_and_keep_those_before():
    known = renew(None, terms(), hour(1))
    assert (known.since, [limit.amount for limit in known.limits]) == (MONTHLY.period_at(hour(1)).start, [100])
    assert renew(known, terms(), hour(60)) == known
    later = MONTHLY.period_at(hour(1)).end + timedelta(hours=1)
    raised = renew(known, terms(limit=Decimal(500)), later)
    assert [limit.amount for limit in raised.limits] == [100, 500]
    assert raised.since == known.since
    daily = renew(raised, terms(period=Interval.DAY), later)
    assert (daily.since, daily.limit.since) == (known.since, daily.cycle.period_at(later).start)
    # A longer period counts all that was used in it, where nothing reaches into it from those before.
    monthly = renew(daily, terms(anchor=None), later + timedelta(days=2))
    assert monthly.limit.since == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("changes", [{"period": Interval.HOUR}, {"refill": Interval.DAY}])
def test_rollovers_that_cannot_be(changes):
    with pytest.raises(InvalidGrant):
        check_quota(terms(rollover_max=Decimal(1), **changes))


def test_features_and_meters_that_cannot_be():
    check_feature("sso", FeatureKind.BOOLEAN, None)
    for slug, kind, meter in [
        ("", "boolean", None),
        ("A", "static", None),
        ("a", "metered", None),
        ("a", "static", "m"),
    ]:
        with pytest.raises(InvalidGrant):
            check_feature(slug, FeatureKind(kind), meter)
    check_aggregation(Aggregation.SUM)
    with pytest.raises(InvalidGrant):
        check_aggregation(Aggregation.AVG)
