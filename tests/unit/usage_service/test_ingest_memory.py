"""What requests hold: never more than there is, never all of it by one, and nothing that stays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import RateLimited, Unavailable
from usage_service.ingest.memory import IngestMemory, bytes_held

MIB = 1 << 20


def test_a_request_holds_until_it_ends():
    memory = IngestMemory(MIB, lambda: 0)
    with memory.hold("a", 1_000) as holding:
        assert memory.held == bytes_held(1_000)
        holding.hold(500)
        assert memory.held == bytes_held(1_000)
        holding.hold(2_000)
        assert memory.held == bytes_held(2_000)
    holding.release()
    assert memory.held == 0


def test_what_kafka_has_not_acknowledged_counts():
    pending = [0]
    memory = IngestMemory(MIB, lambda: pending[0])
    memory.hold("a", 0).release()
    pending[0] = MIB - bytes_held(0) + 1
    with pytest.raises(Unavailable) as refused:
        memory.hold("a", 0)
    assert refused.value.headers["Retry-After"] == "1"


def test_one_caller_leaves_room_for_others():
    memory = IngestMemory(90 * bytes_held(0), lambda: 0)
    for _ in range(60):
        memory.hold("loud", 0)
    with pytest.raises(RateLimited) as refused:
        memory.hold("loud", 0)
    assert refused.value.headers["Retry-After"] == "1"
    quiet = [memory.hold(f"quiet-{number}", 0) for number in range(30)]
    with pytest.raises(Unavailable):
        memory.hold("late", 0)
    quiet.pop().release()
    memory.hold("late", 0)


def test_what_cannot_be_held_takes_nothing():
    memory = IngestMemory(MIB, lambda: 0)
    with pytest.raises(Unavailable):
        memory.hold("a", MIB)
    holding = memory.hold("a", 1_000)
    with pytest.raises(Unavailable):
        holding.hold(MIB)
    assert memory.held == bytes_held(1_000)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60_000), st.booleans()), max_size=60))
def test_it_is_bounded_whatever_comes(steps):
    pending = [0]
    memory = IngestMemory(MIB, lambda: pending[0])
    holdings: list[Any] = []
    for caller, size, ends in steps:
        if ends and holdings:
            holdings.pop(0).release()
            continue
        pending[0] = min(size, MIB - memory.held)
        try:
            holdings.append(memory.hold(caller, size))
        except (RateLimited, Unavailable):
            continue
        assert memory.held + pending[0] <= MIB
    for holding in holdings:
        holding.release()
    assert memory.held == 0
