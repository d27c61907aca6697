"""A shared timeout decides as asyncio's own does, for each wait by itself."""

import asyncio

import pytest

from tenantry import SharedTimeout


async def test_a_wait_that_is_too_long_is_ended_and_others_go_on():
    timeout = SharedTimeout(0.05)
    late, early = asyncio.Event(), asyncio.Event()

    async def wait(event):
        with timeout():
            await event.wait()

    tasks = [asyncio.create_task(wait(event)) for event in (late, early, late)]
    await asyncio.sleep(0)
    early.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in ended] == [TimeoutError, type(None), TimeoutError]


async def test_a_wait_that_begins_later_has_its_whole_time():
    timeout = SharedTimeout(0.08)
    loop = asyncio.get_running_loop()
    with timeout():
        await asyncio.sleep(0.05)
    began = loop.time()
    with pytest.raises(TimeoutError), timeout():
        await asyncio.Event().wait()
    assert loop.time() - began >= 0.08
    with pytest.raises(TimeoutError), timeout():  # the timer was at rest
        await asyncio.Event().wait()


async def test_a_task_that_timed_out_is_not_cancelled_afterwards():
    with pytest.raises(TimeoutError), SharedTimeout(0.01)():
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_cancellation_by_another_is_one_also_when_the_time_is_over():
    timeout = SharedTimeout(0.01)

    async def wait():
        with timeout():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                task.cancel()
                raise

    task = asyncio.create_task(wait())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_raised_inside_comes_out():
    with pytest.raises(KeyError), SharedTimeout(1.0)():
        raise KeyError


async def test_of_waits_inside_of_one_another_the_shorter_ends():
    async def wait():
        with SharedTimeout(5.0)():
            try:
                with SharedTimeout(0.01)():
                    await asyncio.Event().wait()
            except TimeoutError:
                return "inner"

    assert await wait() == "inner"
