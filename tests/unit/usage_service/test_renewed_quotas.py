"""What is changed of a quota holds for the period that runs: what those before it gave, left and owed stays."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usage_service.domain.entitlement_periods import Cycle, Interval, UsagePeriod
from usage_service.domain.entitlements import Value, course_of, follow, values_of
from usage_service.domain.errors import InvalidGrant
from usage_service.domain.grants import ZERO, Grant
from usage_service.domain.quotas import Quota, QuotaTerms, next_turn, period_at, periods_back, renew, restart

UTC_ZONE = ZoneInfo("UTC")
HOUR = timedelta(hours=1)
START = datetime(2026, 9, 1, tzinfo=UTC)

Usage = list[tuple[datetime, int]]


def terms(limit: int | None, period: Interval = Interval.MONTH, **changes: object) -> QuotaTerms:
    amount = None if limit is None else Decimal(limit)
    return QuotaTerms(limit=amount, period=period, hard=True, alerts=(), time_zone=UTC_ZONE, **changes)  # type: ignore[arg-type]


def top_up(amount: int, at: datetime, **changes: object) -> Grant:
    return Grant(id=f"top-up@{at}", amount=Decimal(amount), effective_at=at, created_at=at, **changes)  # type: ignore[arg-type]


def values(quota: Quota, until: datetime, usage: Usage, back_to: datetime | None = None) -> list[Value]:
    course = course_of(quota, until, back_to=back_to)
    amounts = [Decimal(sum(n for at, n in usage if each.start <= at < each.end)) for each in course.segments]
    return values_of(quota, course, follow(course, amounts))


def day(month: int, number: int, hour: int = 0) -> datetime:
    return datetime(2026, month, number, hour, tzinfo=UTC)


def test_another_period_neither_gives_a_used_top_up_back_nor_burns_an_unused_one():
    monthly = replace(renew(None, terms(1000), day(11, 1)), grants=[top_up(500, day(11, 2))])
    usage = [(day(11, 1 + number), 70) for number in range(20)]
    [before] = values(monthly, day(11, 21), usage)
    assert (before.usage, before.balance) == (1400, 100)
    daily = renew(monthly, terms(50, Interval.DAY), day(11, 21, 10))
    after = values(daily, day(11, 21, 11), usage)[-1]
    assert (after.balance, after.usage, after.available) == (50 + 100, 0, 150)
    assert after.period == UsagePeriod(day(11, 21), day(11, 22))
    # And what was not needed is whole.
    spared = [(at, 20) for at, _ in usage]
    assert values(daily, day(11, 21, 11), spared)[-1].balance == 50 + 500
    # A day's quota that becomes a month's: the days keep what they took of the top-up.
    back = renew(daily, terms(1000), day(11, 25, 10))
    assert values(back, day(11, 25, 11), usage)[-1].balance == 1000 + 100
    assert period_at(back, day(11, 25, 11)) == UsagePeriod(day(11, 25), day(12, 1))


def test_overage_that_was_dropped_is_not_owed_when_it_is_to_be_preserved():
    soft = renew(None, terms(100), START)
    usage = [(day(month, 5), 150) for month in (9, 10, 11)]
    preserving = renew(soft, terms(100, preserve_overage=True), day(11, 22))
    [now] = values(preserving, day(11, 23), usage)[-1:]
    assert (now.usage, now.balance, now.overage) == (150, 0, 50)
    # This month's is, from the next on, and stays so where it is dropped again by then.
    assert values(preserving, day(12, 2), usage)[-1].balance == 50
    dropping = renew(preserving, terms(100), day(12, 1))
    assert values(dropping, day(12, 2), usage)[-1].balance == 50


def test_what_rolls_over_is_not_rolled_over_before():
    plain = renew(None, terms(100), START)
    rolling = renew(plain, terms(100, rollover_max=Decimal(50)), day(11, 22))
    assert values(rolling, day(11, 23), [])[-1].balance == 100
    assert values(rolling, day(12, 2), [])[-1].balance == 150


intervals = st.sampled_from([Interval.DAY, Interval.WEEK, Interval.MONTH])
changes = st.builds(
    lambda period, limit, pays, preserves, rolls: terms(
        limit, period, pays_overage=pays, preserve_overage=preserves, rollover_max=Decimal(rolls)
    ),
    intervals,
    st.none() | st.integers(0, 200),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 0, 30]),
)
hours = st.integers(1, 24 * 90).map(lambda number: START + number * HOUR)


def test_a_reset_stays_where_the_cycle_is_changed_and_changed_back():
    quota = replace(renew(None, terms(100), START), grants=[top_up(5, START)])
    quota = restart(quota, day(9, 10), day(9, 10), retain_anchor=True)
    quota = renew(renew(quota, terms(9, Interval.DAY), day(9, 10)), terms(100), day(9, 10))
    assert period_at(quota, day(9, 10)) == UsagePeriod(day(9, 10), day(10, 1))


@settings(max_examples=40)
@given(
    changes,
    st.lists(st.tuples(hours, changes | st.booleans()), max_size=5),
    st.lists(st.tuples(hours, st.integers(-50, 200)), max_size=12),
    st.lists(st.tuples(hours, st.integers(1, 300)), max_size=3, unique_by=lambda given: given[0]),
)
def test_a_period_that_is_over_never_changes(first, later, usage, bought):
    quota = replace(renew(None, first, START), grants=[top_up(amount, at) for at, amount in bought])
    # A grant that is active all the time: so nothing is ever counted anew from before the period that runs.
    quota = replace(quota, grants=[*quota.grants, top_up(1, START)])
    for now, change in sorted(later, key=lambda each: each[0]):
        running = period_at(quota, now)
        if isinstance(change, bool):
            changed = restart(quota, now, now, retain_anchor=change)
        else:
            changed = renew(quota, change, now)
        over = [period for period, _ in periods_back(quota, now)][1:]
        assert [period for period, _ in periods_back(changed, running.start - HOUR / 2)][
            : len(over)
        ] == over or not over
        for period in over[:12]:
            assert values(changed, period.end, usage)[-1] == values(quota, period.end, usage)[-1]
        quota = changed


@settings(max_examples=40)
@given(
    changes,
    st.lists(st.tuples(hours, changes), max_size=3),
    st.lists(st.tuples(hours, st.integers(-50, 200)), max_size=12),
    hours,
)
def test_values_of_periods_that_are_looked_back_to_are_what_they_were(first, later, usage, until):
    quota = renew(None, first, START)
    for now, change in sorted(later, key=lambda each: each[0]):
        quota = renew(quota, change, now)
    seen = [each for each in values(quota, until, usage, back_to=START) if each.period.end > START]
    assert [each.period for each in seen] == [
        period for period, _ in periods_back(quota, until - HOUR / 2) if period.end > START
    ][::-1]
    for each in seen[:-1]:
        assert values(quota, each.period.end, usage)[-1] == each


def test_what_a_period_gives_leaves_out_what_was_owed_before():
    preserving = renew(None, terms(100, preserve_overage=True), START)
    usage = [(day(9, 5), 250)]
    october = values(preserving, day(10, 2), usage)[-1]
    assert (october.balance, october.usage, october.overage, october.available) == (0, 0, 50, 0)
    paid = replace(preserving, grants=[top_up(80, day(10, 3))])
    assert (values(paid, day(10, 4), usage)[-1].balance, values(paid, day(10, 4), usage)[-1].available) == (30, 30)
    number_only = renew(None, terms(100, preserve_overage=True, pays_overage=False), START)
    october = values(number_only, day(10, 2), [(day(9, 5), 150)])[-1]
    assert (october.balance, october.overage, october.available) == (100, 50, 100)
    used = values(number_only, day(10, 2), [(day(9, 5), 150), (day(10, 1), 130)])[-1]
    assert (used.balance, used.usage, used.overage, used.available) == (0, 130, 80, 100)


def test_a_reset_begins_a_period_and_moves_the_anchor():
    quota = replace(renew(None, terms(100), START), grants=[top_up(30, START, rollover_max=Decimal(10))])
    at, now = day(9, 10, 5), day(9, 10, 9)
    usage = [(day(9, 2), 90), (day(9, 10, 6), 7)]
    moved = restart(quota, at, now, retain_anchor=False)
    [value] = values(moved, day(9, 10, 10), usage)[-1:]
    assert (value.period, value.usage, value.balance) == (UsagePeriod(at, day(10, 10, 5)), 7, 100 + 10 - 7)
    assert next_turn(moved, now) == day(10, 10, 5)
    kept = restart(quota, at, now, retain_anchor=True)
    assert period_at(kept, now) == UsagePeriod(at, day(10, 1))
    assert period_at(kept, day(9, 9)) == UsagePeriod(START, at)
    assert restart(moved, at, now, retain_anchor=False) == moved
    # Put again as it is, or with another limit, it stays reset.
    assert renew(moved, terms(100), day(9, 20)) == moved
    raised = renew(moved, terms(200), day(9, 20))
    assert period_at(raised, day(9, 20)).start == at
    assert period_at(renew(kept, terms(200), day(9, 20)), day(9, 20)) == UsagePeriod(at, day(10, 1))
    assert values(raised, day(9, 21), usage)[-1].balance == 200 + 10 - 7
    for wrong in (day(9, 10, 10), START - HOUR):
        with pytest.raises(InvalidGrant):
            restart(quota, wrong, now, retain_anchor=False)


def test_years_of_hours_are_followed_in_the_time_that_their_number_takes():
    quota = replace(
        renew(None, terms(10, Interval.HOUR, preserve_overage=True), START),
        grants=[top_up(1, START + number * HOUR) for number in range(30)],
    )
    course = course_of(quota, START + 5_000 * HOUR)
    usage = [Decimal(9 + number % 3) for number in range(len(course.segments))]
    began = time.process_time()
    burnt = follow(course, usage)
    assert time.process_time() - began < 3  # a run that walks all grants at each of them takes a minute
    assert len(burnt.ended) == 4_999
    assert course_of(replace(quota, grants=[]), START + 5_000 * HOUR, back_to=None).periods[0].start == START


def test_it_is_looked_back_as_far_as_a_grant_reaches():
    grants = [
        top_up(5, day(9, 3), expires_at=day(9, 20)),
        top_up(5, day(10, 10), expires_at=day(11, 20)),
        top_up(5, day(11, 10), rollover_max=ZERO),
    ]
    quota = replace(renew(None, terms(10, Interval.DAY), START), grants=grants)
    began = [course_of(quota, each).opening.at for each in (day(9, 2), day(9, 20), day(10, 2), day(11, 15), day(12, 1))]
    assert began == [day(9, 1), day(9, 3), day(10, 1), day(10, 10), day(11, 30)]
    assert Cycle(Interval.HOUR, START, every=6).period_at(START + 7 * HOUR).start == START + 6 * HOUR
