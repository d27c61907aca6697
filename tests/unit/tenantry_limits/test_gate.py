"""Tasks that wait for places: cancelled, too late, shed."""

import asyncio
import time
from uuid import UUID

import pytest

from tenantry.limits import FairGate, ProcessFull, Share, TenantFull
from tenantry.limits._gate import PACE_SECONDS

A, B = UUID(int=1), UUID(int=2)
ONE = Share()


def gate_of(capacity, *, max_waiting=10, wait=30.0, reserve=0):
    return FairGate(capacity, max_waiting=max_waiting, wait=wait, reserve=reserve)


async def until_waiting(gate, count):
    async with asyncio.timeout(5):
        while gate.waiting < count:  # noqa: ASYNC110 - the gate has no event for tests
            await asyncio.sleep(0)


async def test_a_place_goes_to_who_waits():
    gate = gate_of(1)
    first = await gate.enter(A, ONE)
    second = asyncio.create_task(gate.enter(B, ONE))
    await until_waiting(gate, 1)
    first.release()
    first.release()  # nothing more
    (await second).release()
    assert (gate.held, gate.waiting) == (0, 0)


async def test_who_gives_up_leaves_no_trace():
    gate = gate_of(1)
    with await gate.enter(A, ONE):
        waiter = asyncio.create_task(gate.enter(B, ONE))
        await until_waiting(gate, 1)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert gate.waiting == 0
    assert gate.held == 0


async def test_a_place_that_is_granted_to_a_cancelled_task_goes_to_the_next():
    gate = gate_of(1)
    place = await gate.enter(A, ONE)
    cancelled = asyncio.create_task(gate.enter(B, ONE))
    await until_waiting(gate, 1)
    next_one = asyncio.create_task(gate.enter(B, ONE))
    await until_waiting(gate, 2)
    cancelled.cancel()  # has not run since
    place.release()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    async with asyncio.timeout(5):
        (await next_one).release()
    assert gate.held == 0


async def test_a_task_that_is_cancelled_after_the_grant_gives_the_place_back():
    gate = gate_of(1)
    place = await gate.enter(A, ONE)
    cancelled = asyncio.create_task(gate.enter(B, ONE))
    await until_waiting(gate, 1)
    place.release()  # granted to the task, which has not run since
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert gate.held == 0


async def test_who_waits_for_its_own_cap_is_told_so_and_others_that_the_process_is_full():
    gate = gate_of(2, wait=0.01)
    with await gate.enter(A, Share(cap=1)):
        with pytest.raises(TenantFull) as full:
            await gate.enter(A, Share(cap=1))
        assert (full.value.status, full.value.type, full.value.retry_after) == (429, "rate-limited", 1)
        with await gate.enter(B, ONE):
            with pytest.raises(ProcessFull) as busy:
                await gate.enter(B, ONE)
            assert (busy.value.status, busy.value.headers["Retry-After"]) == (503, "1")
    assert (gate.held, gate.waiting) == (0, 0)


async def test_only_as_many_wait_for_a_cap_as_the_cap_is():
    gate, capped = gate_of(10), Share(cap=2)
    places = [await gate.enter(A, capped) for _ in range(2)]
    waiters = [asyncio.create_task(gate.enter(A, capped)) for _ in range(2)]
    await until_waiting(gate, 2)
    with pytest.raises(TenantFull):
        await gate.enter(A, capped)
    for place in places:
        place.release()
    for waiter in waiters:
        (await waiter).release()
    assert gate.held == 0


async def test_the_loud_are_shed_and_the_quiet_are_served():
    gate = gate_of(1, max_waiting=3)
    place = await gate.enter(A, ONE)
    loud = [asyncio.create_task(gate.enter(A, ONE)) for _ in range(3)]
    await until_waiting(gate, 3)
    quiet = asyncio.create_task(gate.enter(B, ONE))
    with pytest.raises(ProcessFull):
        await loud[2]
    place.release()
    (await quiet).release()
    for task in loud[:2]:
        (await task).release()
    assert (gate.held, gate.waiting) == (0, 0)


async def test_a_storm_of_cancellations_loses_no_place():
    gate = gate_of(3, max_waiting=1_000)

    async def work(tenant):
        with await gate.enter(tenant, Share(cap=2)):
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work(A if n % 3 else B)) for n in range(300)]
    for n, task in enumerate(tasks):
        await asyncio.sleep(0)
        if n % 2:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (gate.held, gate.waiting) == (0, 0)


@pytest.fixture
def busy_loop(monkeypatch):
    """The thread seems to use its core all the time."""
    monkeypatch.setattr("tenantry.limits._gate.time.thread_time", time.monotonic)


async def test_what_waits_itself_is_in_progress_within_a_few_steps():
    gate = FairGate(100, max_waiting=100, wait=5.0, paced=True)
    (await gate.enter(B, ONE)).release()  # nobody is alone
    burst = [asyncio.create_task(gate.enter(A, ONE)) for _ in range(20)]
    await until_waiting(gate, 19)
    started = time.monotonic()
    async with asyncio.timeout(5):
        for place in await asyncio.gather(*burst):
            place.release()
    # 1, 2, 4, 8, 16, 20: five steps of a hundredth of a second, late ones included.
    assert time.monotonic() - started < 1
    assert (gate.held, gate.waiting) == (0, 0)


async def test_beside_others_a_tenant_gets_no_more_of_a_loop_that_has_no_time(busy_loop):
    gate = FairGate(100, max_waiting=100, wait=5.0, paced=True)
    first = await gate.enter(A, ONE)
    others = [asyncio.create_task(gate.enter(A, ONE)) for _ in range(2)]
    await until_waiting(gate, 2)
    await asyncio.sleep(10 * PACE_SECONDS)
    assert (gate.held, gate.waiting) == (1, 2)
    # Another tenant does not wait, and the place that is given back goes to the next at once.
    with await gate.enter(B, ONE):
        first.release()
        (await others[0]).release()
        (await others[1]).release()
    assert (gate.held, gate.waiting) == (0, 0)


async def test_who_is_alone_has_the_loop_for_itself(busy_loop, monkeypatch):
    monkeypatch.setattr("tenantry.limits._gate.ALONE_SECONDS", 0.05)
    gate = FairGate(100, max_waiting=100, wait=5.0, paced=True)
    burst = [asyncio.create_task(gate.enter(A, ONE)) for _ in range(10)]
    async with asyncio.timeout(5):
        for place in await asyncio.gather(*burst):
            place.release()


async def test_nothing_ticks_while_nobody_waits():
    gate = FairGate(100, max_waiting=100, wait=5.0, paced=True)
    with await gate.enter(A, ONE):
        waiter = asyncio.create_task(gate.enter(A, ONE))
        await until_waiting(gate, 1)
        (await waiter).release()
        await asyncio.sleep(2 * PACE_SECONDS)
        assert gate._step is None
