from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_service.domain.entitlement_burndown import BurnDown, Reset, Terms, boundaries, burn_down, opening
from usage_service.domain.entitlement_periods import Cycle, Interval
from usage_service.domain.errors import InvalidGrant
from usage_service.domain.grants import ZERO, Grant, burn_order, check_grant

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 10

Usage = list[tuple[datetime, Decimal]]

amounts = st.decimals(min_value=0, max_value=1000, places=3)
moments = st.integers(0, 24 * DAYS).map(lambda hours: START + timedelta(hours=hours))
cycles = st.none() | st.builds(Cycle, st.sampled_from([Interval.DAY, Interval.HOUR]), moments)


@st.composite
def grants(draw: st.DrawFn) -> list[Grant]:
    return [
        Grant(
            id=f"g{number}",
            amount=draw(amounts),
            effective_at=(effective := draw(moments)),
            created_at=START,
            expires_at=draw(st.none() | st.integers(1, 200).map(lambda hours: effective + timedelta(hours=hours))),
            voided_at=draw(st.none() | moments),
            priority=draw(st.integers(0, 2)),
            rollover_min=(least := draw(amounts)),
            rollover_max=draw(st.none() | amounts.map(lambda more: least + more)),
            recurrence=draw(cycles),
        )
        for number in range(draw(st.integers(0, 4)))
    ]


@st.composite
def terms(draw: st.DrawFn) -> Terms:
    resets = draw(st.lists(moments.filter(lambda moment: moment > START), max_size=4, unique=True))
    return Terms(
        grants=draw(grants()),
        resets=[
            Reset(at, preserves_overage=draw(st.booleans()), pays_overage=draw(st.booleans())) for at in sorted(resets)
        ],
        pays_overage=draw(st.booleans()),
    )


used = st.lists(st.tuples(moments, amounts), max_size=12)
used_and_given_back = st.lists(st.tuples(moments, st.decimals(-1000, 1000, places=3)), max_size=12)


def run(terms: Terms, usage: Usage, until: datetime) -> BurnDown:
    spans = pairwise(boundaries(terms, START, until))
    amounts = [sum((n for at, n in usage if start <= at < end), ZERO) for start, end in spans]
    inside = replace(terms, resets=[reset for reset in terms.resets if reset.at <= until])
    return burn_down(inside, opening(terms.grants, START), until, amounts)


@given(terms(), used_and_given_back, moments)
def test_nothing_is_created_or_lost(terms, usage, until):
    burnt = run(terms, usage, until)
    account = burnt.account
    spent = account.used + burnt.closing.standing.balance + account.expired + account.rolled_off
    assert account.opened + account.granted == spent


@given(terms(), used_and_given_back, moments)
def test_no_grant_has_less_than_nothing_or_more_than_it_was_given(terms, usage, until):
    for moment in boundaries(terms, START, until):
        left = run(terms, usage, moment).carried.left
        for grant in terms.grants:
            assert 0 <= left[grant.id] <= max(grant.amount, grant.rollover_min)
            assert left[grant.id] == 0 or grant.active_at(moment)


@given(terms(), used, moments)
def test_what_was_used_came_from_grants_or_is_overage(terms, usage, until):
    terms = replace(terms, resets=())
    burnt = run(terms, usage, until)
    assert burnt.account.used + burnt.closing.standing.overage == sum((n for at, n in usage if at < until), ZERO)


@given(terms(), st.permutations(range(4)), used, moments)
def test_the_order_in_which_grants_and_usage_come_makes_no_difference(terms, order, usage, until):
    shuffled = [terms.grants[place] for place in order if place < len(terms.grants)]
    again = run(replace(terms, grants=shuffled), usage[::-1], until)
    burnt = run(terms, usage, until)
    assert (again.closing, again.carried, again.account) == (burnt.closing, burnt.carried, burnt.account)


@given(terms(), used_and_given_back, moments, moments)
def test_a_run_that_stops_and_goes_on_ends_like_one_that_does_not(terms, usage, one, other):
    middle, until = sorted((one, other))
    if not all(each.pays_overage for each in (terms, *terms.resets)):
        # Beside a debt that nothing pays, what is given back and used again in one segment is only its sum.
        middle = max(at for at in boundaries(terms, START, until) if at <= middle)
    first = run(terms, usage, middle)
    pays = [terms.pays_overage, *(reset.pays_overage for reset in terms.resets if reset.at <= middle)][-1]
    later = [reset for reset in terms.resets if middle < reset.at <= until]
    rest = replace(terms, resets=later, pays_overage=pays)
    spans = pairwise(boundaries(rest, middle, until))
    amounts = [sum((n for at, n in usage if start <= at < end), ZERO) for start, end in spans]
    resumed = burn_down(rest, first.carried, until, amounts)
    whole = run(terms, usage, until)
    assert resumed.carried == whole.carried
    assert middle == until or resumed.closing == whole.closing


def day(number: int, hour: int = 0) -> datetime:
    return START + timedelta(days=number, hours=hour)


def grant(amount: str, effective: datetime = START, **more: object) -> Grant:
    given = {"id": "g", "created_at": effective, **more}
    return Grant(amount=Decimal(amount), effective_at=effective, **given)  # type: ignore[arg-type]


def amounts_of(*texts: str) -> list[Decimal]:
    return [Decimal(text) for text in texts]


def burn(terms: Terms, until: datetime, *usage: str) -> BurnDown:
    return burn_down(terms, opening(terms.grants, START), until, amounts_of(*usage))


def test_priority_then_expiry_then_age_then_id():
    late = grant("1", id="late", expires_at=day(9))
    soon = grant("1", id="soon", expires_at=day(5))
    never = grant("1", id="never")
    young = replace(never, id="a-young", created_at=day(1))
    twin = replace(never, id="never-2")
    first = grant("1", id="first", priority=1)
    assert burn_order([young, twin, never, late, soon, first]) == [first, soon, late, never, twin, young]


def test_a_later_grant_pays_earlier_overage_where_the_plan_says_so():
    terms = Terms(grants=[grant("100", day(2))])
    assert burn(terms, day(4), "25", "25").closing.standing.balance == 50
    spared = burn(replace(terms, pays_overage=False), day(4), "25", "25").closing.standing
    assert (spared.balance, spared.overage) == (75, 25)


def test_expiry_is_exclusive():
    terms = Terms(grants=[grant("50", expires_at=day(1))])
    burnt = burn(terms, day(1), "10")
    assert (burnt.closing.standing.balance, burnt.carried.standing.balance) == (40, 0)
    assert burn(terms, day(2), "10", "5").closing.standing.overage == 5


@pytest.mark.parametrize(
    ("least", "most", "left"), [("0", None, "70"), ("0", "50", "50"), ("80", "90", "80"), ("0", "0", "0")]
)
def test_rollover_is_bounded(least, most, left):
    rolled = grant("100", rollover_min=Decimal(least), rollover_max=None if most is None else Decimal(most))
    burnt = burn(Terms(grants=[rolled], resets=[Reset(day(5))]), day(5), "30")
    assert (burnt.carried.standing.balance, burnt.carried.usage) == (Decimal(left), 0)
    assert [
        standing.usage for standing in burn(Terms(grants=[rolled], resets=[Reset(day(5))]), day(6), "30", "1").ended
    ] == [30]


def test_overage_ends_with_its_period_unless_it_is_preserved():
    terms = Terms(grants=[grant("10"), grant("10", day(5), id="next")], resets=[Reset(day(5))])
    assert burn(terms, day(5), "14").carried.standing.balance == 10
    kept = burn(replace(terms, resets=[Reset(day(5), preserves_overage=True)]), day(5), "14").carried.standing
    assert (kept.balance, kept.overage, kept.usage) == (6, 0, 0)


def test_a_refill_at_a_reset_comes_after_the_rollover():
    daily = grant("10", rollover_max=ZERO, recurrence=Cycle(Interval.DAY, START))
    burnt = burn(Terms(grants=[daily], resets=[Reset(day(1))]), day(1), "4")
    assert burnt.carried.standing.balance == 10


def test_what_is_given_back_goes_to_the_overage_and_then_to_the_grants_in_reverse():
    terms = Terms(grants=[grant("10", id="a", priority=1), grant("10", id="b", priority=2, expires_at=day(9))])
    terms = replace(terms, grants=[*terms.grants, grant("1", day(1), id="cut", priority=3)])
    burnt = burn(terms, day(3), "25", "-12")
    assert burnt.closing.left == {"a": 0, "b": 8, "cut": 0}
    more = burn(terms, day(3), "5", "-8").closing
    assert (more.left["a"], more.standing.overage, more.owed) == (10, 0, -3)
    assert more.standing.available == more.standing.balance


def test_a_run_knows_its_grants_and_starts_before_its_resets():
    terms = Terms(grants=[grant("10")])
    with pytest.raises(InvalidGrant):
        burn_down(terms, opening([], START), day(1), [ZERO])
    with pytest.raises(InvalidGrant):
        burn(replace(terms, resets=[Reset(START)]), day(1), "0")
    with pytest.raises(ValueError, match="zip"):
        burn(terms, day(1))


@pytest.mark.parametrize(
    ("loc", "change"),
    [
        ("amount", {"amount": ZERO}),
        ("expires_at", {"expires_at": START}),
        ("priority", {"priority": 256}),
        ("rollover_min", {"rollover_min": Decimal(-1)}),
        ("rollover_max", {"rollover_min": Decimal(2), "rollover_max": Decimal(1)}),
    ],
)
def test_grants_that_cannot_be(loc, change):
    with pytest.raises(InvalidGrant) as refused:
        check_grant(replace(grant("10"), **change))
    assert refused.value.loc == loc
