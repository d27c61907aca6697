"""Retries, the fan-in of answers and what begins."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity.wait import wait_exponential_jitter

from tenant_service.domain.saga import (
    NEWEST_SHARE,
    RUNS_UNDER_WAY,
    AckOutcome,
    Answer,
    RetryPolicy,
    StepFailure,
    fan_in,
    runs_to_begin,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAILURE = StepFailure("no-answer", "app")
POLICY = RetryPolicy(
    wait=wait_exponential_jitter(multiplier=0.5, max=60, jitter=0.5), attempts=8, answer_within=timedelta(seconds=30)
)

services = st.sampled_from(["app", "billing", "usage", "other"])
answers = st.builds(
    Answer,
    service=services,
    attempt=st.integers(1, 3),
    outcome=st.sampled_from([None, *AckOutcome]),
    error_code=st.sampled_from([None, "quota", "disk"]),
)


@given(st.integers(1, 7))
def test_the_pause_grows_up_to_its_bound(attempt):
    again = POLICY.next_attempt(attempt, FAILURE, NOW)
    assert again is not None
    lowest = min(0.5 * 2 ** (attempt - 1), 60)
    assert lowest <= (again - NOW).total_seconds() <= min(lowest + 0.5, 60)


@pytest.mark.parametrize("attempt", [8, 9, 1000])
def test_the_budget_ends(attempt):
    assert POLICY.next_attempt(attempt, FAILURE, NOW) is None


def test_what_cannot_be_repaired_is_not_repeated():
    assert POLICY.next_attempt(1, StepFailure("x", "x", permanent=True), NOW) is None


@given(st.sets(services), st.lists(answers), st.integers(1, 3))
def test_complete_means_that_every_required_service_is_done(required, given_answers, attempt):
    done = {answer.service for answer in given_answers if answer.outcome is AckOutcome.DONE}
    result = fan_in(required, given_answers, attempt)
    assert result.complete == (required <= done)
    assert result.missing == required - done


@given(st.sets(services), st.lists(answers), st.integers(1, 3), st.randoms())
def test_order_and_repetition_of_answers_do_not_matter(required, given_answers, attempt, random):
    shuffled = [*given_answers, *given_answers]
    random.shuffle(shuffled)
    once, twice = fan_in(required, given_answers, attempt), fan_in(required, shuffled, attempt)
    assert (once.missing, once.failure is None) == (twice.missing, twice.failure is None)


def test_a_failure_carries_the_words_of_the_service():
    result = fan_in(["app"], [Answer("app", 1, AckOutcome.FAILED, "disk-full", "no space for a schema")], 1)
    assert result.failure == StepFailure("disk-full", "app: no space for a schema", permanent=True)


def test_a_failure_of_an_earlier_attempt_does_not_stop_the_present_one():
    result = fan_in(["app"], [Answer("app", 1, AckOutcome.FAILED, "disk-full"), Answer("app", 2)], 2)
    assert result.failure is None
    assert not result.complete


def test_a_late_success_counts():
    assert fan_in(["app"], [Answer("app", 1, AckOutcome.DONE), Answer("app", 2)], 2).complete


def test_nobody_required_is_complete():
    assert fan_in([], [], 1).complete


@given(st.integers(0, 3 * RUNS_UNDER_WAY), st.integers(1, 200))
def test_what_begins_has_room_and_the_newest_get_their_share(under_way, places):
    oldest, newest = runs_to_begin(under_way, places)
    assert under_way + oldest + newest <= max(under_way, RUNS_UNDER_WAY)
    assert oldest + newest <= places
    assert newest == (oldest + newest) // NEWEST_SHARE
    assert bool(oldest) == (under_way + NEWEST_SHARE <= RUNS_UNDER_WAY)
