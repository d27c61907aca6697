"""Whose job is next. What shares are is tested with the fair queue itself; here, that tenants stand in line once."""

from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from tenantry.jobs._queue import Queue
from tenantry.jobs._turns import Turn, Turns
from tenantry.limits import Share


def queue():
    async def never():
        raise NotImplementedError

    return Queue("of a test", never)  # type: ignore[arg-type]


QUEUE, OTHER_QUEUE = queue(), queue()
A, B = (Turn(UUID(int=n), QUEUE) for n in (1, 2))


def test_a_tenant_stands_in_line_once():
    turns = Turns(4, reserve=0)
    for _ in range(3):
        turns.join(A, Share())
    assert [turns.next(), turns.next()] == [A, None]


def test_in_each_of_its_queues():
    turns = Turns(4, reserve=0)
    elsewhere = Turn(A.tenant_id, OTHER_QUEUE)
    turns.join(A, Share())
    turns.join(elsewhere, Share())
    assert {turns.next(), turns.next()} == {A, elsewhere}


def test_the_reserve_is_for_who_has_no_job_running():
    turns = Turns(3, reserve=1)
    taken = []
    for _ in range(3):
        turns.join(A, Share())
        taken.append(turns.next())
    assert taken == [A, A, None]
    turns.join(B, Share())
    assert turns.next() == B


def test_a_cap_holds_whatever_is_free_and_ends_with_a_job():
    turns = Turns(8, reserve=0)
    turns.join(A, Share(cap=1))
    assert turns.next() == A
    turns.join(A, Share(cap=1))
    assert turns.next() is None
    turns.end(A)
    assert turns.next() == A
    assert turns.holds(A.tenant_id) == turns.running == 1


@given(jobs=st.lists(st.integers(1, 40), min_size=2, max_size=6), slots=st.integers(1, 4))
def test_nobody_waits_for_more_than_one_job_of_each_other(jobs, slots):
    """Between two turns of a tenant that still has jobs, no other has more than two beside those that run at once."""
    turns = Turns(slots, reserve=0)
    tenants = [Turn(UUID(int=n), QUEUE) for n in range(len(jobs))]
    left = dict(zip(tenants, jobs, strict=True))
    for tenant in tenants:
        turns.join(tenant, Share())
    order: list[Turn] = []
    running: list[Turn] = []
    while (turn := turns.next()) is not None or running:
        if turn is None:
            turns.end(running.pop(0))
            continue
        order.append(turn)
        running.append(turn)
        left[turn] -= 1
        if left[turn]:
            turns.join(turn, Share())
    assert sorted(order) == sorted(turn for turn, count in zip(tenants, jobs, strict=True) for _ in range(count))
    for tenant, count in zip(tenants, jobs, strict=True):
        own = [n for n, turn in enumerate(order) if turn == tenant]
        assert len(own) == count
        for before, after in pairwise(own):
            between = order[before + 1 : after]
            assert all(between.count(other) <= 1 + slots for other in tenants)
