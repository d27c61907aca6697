"""The pace of refusals: no delay for who is over the limit now and then, a hold for who hurries on."""

import asyncio
import time
from uuid import UUID

import pytest

from tenantry.limits import RefusalPace
from tenantry.limits._refusal_pace import AT_ONCE, LONGEST_HOLD, MOST_HELD, PER_SECOND

A, B = UUID(int=1), UUID(int=2)


class Hand:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def pace(hand):
    return RefusalPace(monotonic=hand)


def test_the_first_refusals_come_at_once_and_the_next_one_after_the_other(pace):
    assert [pace.take(A) for _ in range(AT_ONCE)] == [0.0] * AT_ONCE
    holds = [pace.take(A) for _ in range(PER_SECOND // 2)]
    assert holds == pytest.approx([number / PER_SECOND for number in range(1, PER_SECOND // 2 + 1)])


def test_nothing_is_held_for_longer_than_the_longest_hold(pace):
    assert max(pace.take(A) for _ in range(10_000)) == LONGEST_HOLD


def test_who_stops_is_answered_at_once_again(pace, hand):
    for _ in range(10_000):
        pace.take(A)
    hand.now += LONGEST_HOLD + 1 / PER_SECOND
    assert pace.take(A) == pytest.approx(0.0, abs=1e-6)
    hand.now += AT_ONCE / PER_SECOND
    assert [pace.take(A) for _ in range(AT_ONCE)] == [0.0] * AT_ONCE


def test_another_tenant_does_not_wait(pace):
    for _ in range(10_000):
        pace.take(A)
    assert pace.take(B) == 0.0


def test_tenants_that_have_stopped_take_no_memory(pace, hand):
    for number in range(MOST_HELD + 1):
        pace.take(UUID(int=number))
    hand.now += 1.0
    pace.take(A)
    assert len(pace._due) == 1


async def test_as_many_are_held_as_the_process_holds_and_the_others_are_answered(pace):
    for _ in range(10_000):
        pace.take(A)
    held = [asyncio.create_task(pace.wait(A)) for _ in range(MOST_HELD)]
    await asyncio.sleep(0)
    started = time.monotonic()
    await pace.wait(A)
    assert time.monotonic() - started < LONGEST_HOLD / 2
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert pace._held == 0
