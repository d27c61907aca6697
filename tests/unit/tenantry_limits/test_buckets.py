"""Token buckets against what they promise, in exact arithmetic."""

from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.limits import Policy, Rate, TokenBuckets
from tenantry.limits._buckets import leak

A, B = UUID(int=1), UUID(int=2)
SECOND = 1_000_000_000

rates = st.builds(
    Rate,
    rate=st.one_of(st.floats(0.001, 1_000_000), st.integers(1, 1_000_000).map(float)),
    burst=st.none() | st.integers(1, 10_000),
)
gaps = st.integers(0, 3 * SECOND) | st.integers(0, 1_000)
arrivals = st.lists(st.tuples(gaps, st.integers(1, 50)), min_size=1, max_size=60)


class Hand:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 12_345

    def __call__(self):
        return self.now


@pytest.fixture
def hand():
    return Hand()


@settings(deadline=None)
@given(rates, arrivals, st.sampled_from([1, 2, 3, 7]))
def test_no_window_lets_more_pass_than_burst_and_rate(rate, times, share):
    hand = Hand()
    buckets, policy = TokenBuckets(hand), Policy.of("read", rate, share=share)
    passed = []
    for gap, cost in times:
        hand.now += gap
        if buckets.take(A, policy, cost).allowed:
            passed.append((hand.now, cost))
    # A request that is larger than this process's part of the burst passes a bucket that is full, and nothing with it.
    room = max(Fraction(policy.burst, 1_000_000), max((cost for _, cost in passed if share > 1), default=0))
    for first in range(len(passed)):
        units = 0
        for last in range(first, len(passed)):
            units += passed[last][1]
            seconds = Fraction(passed[last][0] - passed[first][0], SECOND)
            assert units <= room + Fraction(policy.rate, 1_000_000) * seconds


@settings(deadline=None)
@given(rates, arrivals)
def test_what_is_refused_takes_nothing_and_passes_after_the_time_it_was_told(rate, times):
    hand = Hand()
    buckets, policy = TokenBuckets(hand), Policy.of("read", rate)
    for gap, cost in times:
        hand.now += gap
        verdict = buckets.take(A, policy, cost)
        if verdict.allowed or cost > policy.largest:
            continue
        again = buckets.take(A, policy, cost)
        assert not again.allowed
        assert again.wait == verdict.wait
        before = hand.now
        wait = round(verdict.wait * SECOND)
        slack = 2 + SECOND // policy.rate  # a millionth of a unit
        hand.now = before + max(0, wait - slack)
        assert wait <= slack or not buckets.take(A, policy, cost).allowed
        hand.now = before + wait + 1
        assert buckets.take(A, policy, cost).allowed


@settings(deadline=None)
@given(rates)
def test_a_full_bucket_lets_the_burst_pass_and_then_no_more(rate):
    hand = Hand()
    buckets, policy = TokenBuckets(hand), Policy.of("read", rate)
    burst = policy.largest
    assert buckets.take(A, policy, burst).allowed
    refused = buckets.take(A, policy, 1)
    assert not refused.allowed
    assert refused.wait == pytest.approx(1_000_000 / policy.rate, rel=1e-6, abs=2e-9)


@settings(deadline=None)
@given(st.integers(0, 10**13), st.integers(0, 10**15), st.integers(1, 10**12))
def test_never_more_leaks_away_than_the_time_allows(debt, nanoseconds, rate):
    exact = max(Fraction(0), debt - Fraction(nanoseconds * rate, SECOND))
    assert exact <= leak(debt, nanoseconds, rate) < exact + 1


def test_steady_requests_at_the_rate_pass_for_ever(hand):
    buckets, policy = TokenBuckets(hand), Policy.of("read", Rate(20, burst=1))
    for _ in range(10_000):
        assert buckets.take(A, policy).allowed
        hand.now += SECOND // 20


def test_the_remaining_units_and_the_time_to_a_full_bucket_are_told(hand):
    buckets, policy = TokenBuckets(hand), Policy.of("read", Rate(10, burst=40))
    assert buckets.take(A, policy, 10)[1:] == (30, 1.0)
    hand.now += SECOND // 2
    assert buckets.take(A, policy, 5)[1:] == (30, 1.0)


def test_tenants_and_classes_have_buckets_of_their_own(hand):
    buckets = TokenBuckets(hand)
    read, write = Policy.of("read", Rate(1)), Policy.of("write", Rate(1))
    assert buckets.take(A, read).allowed
    assert not buckets.take(A, read).allowed
    assert buckets.take(A, write).allowed
    assert buckets.take(B, read).allowed


@settings(deadline=None)
@given(rates, rates)
def test_a_changed_rate_holds_at_once_and_keeps_the_debt_in_units(before, after):
    hand = Hand()
    buckets, old, new = TokenBuckets(hand), Policy.of("read", before), Policy.of("read", after)
    assert buckets.take(A, old, old.largest).allowed
    verdict = buckets.take(A, new, 1)
    debt = min(old.largest, old.burst // 1_000_000)
    if verdict.allowed:
        assert debt + 1 <= new.largest
    else:
        assert verdict.wait <= (debt * 1_000_000 + 1_000_000) / new.rate + 1e-6


def test_idle_buckets_take_no_memory(hand):
    buckets, policy = TokenBuckets(hand), Policy.of("read", Rate(10))
    for n in range(50_000):
        buckets.take(UUID(int=n), policy)
        hand.now += SECOND // 5_000  # a bucket is as new after a tenth of a second: 500 are busy at a time
    assert len(buckets) <= 2_048


def test_busy_buckets_are_kept_however_many_there_are(hand):
    buckets, policy = TokenBuckets(hand), Policy.of("read", Rate(0.001, burst=1))
    for n in range(5_000):
        assert buckets.take(UUID(int=n), policy).allowed
    assert not any(buckets.take(UUID(int=n), policy).allowed for n in range(5_000))


def test_the_parts_of_processes_add_up_to_the_limit(hand):
    rate, processes = Rate(100, burst=50), 4
    part = Policy.of("read", rate, share=processes)
    passed = 0
    for _ in range(processes):
        buckets = TokenBuckets(hand)
        passed += sum(buckets.take(A, part).allowed for _ in range(200))
    assert passed == processes * (50 // processes)


def test_one_request_may_take_the_whole_burst_of_all_processes_from_one(hand):
    part = Policy.of("read", Rate(100, burst=50), share=4)
    buckets = TokenBuckets(hand)
    assert buckets.take(A, part, 50).allowed
    assert not buckets.take(A, part, 1).allowed
    assert not TokenBuckets(hand).take(A, part, 51).allowed
