"""A server that is killed, frozen and started anew: nobody is refused for it, and nothing stale is served."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

MINUTE = timedelta(minutes=1)


async def until(condition):
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - the state is the server's
            await asyncio.sleep(0.02)


def loading(value):
    async def load():
        counting.calls += 1
        return value

    counting: Any = load
    counting.calls = 0
    return counting


@pytest.fixture
async def profiles(process_of, redis_process, profile_type):
    return (await process_of(redis_process.url)).namespace("profiles", profile_type, ttl=MINUTE)


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_without_the_server_values_are_loaded(profiles, redis_process, profile_type, tenant_a, how):
    await profiles.put("1", profile_type("cached"), tenant=tenant_a)
    getattr(redis_process, how)()
    load = loading(profile_type("loaded"))
    begun = time.monotonic()
    for _ in range(20):
        assert await profiles.get_or_load("1", load, tenant=tenant_a) == profile_type("loaded")
    # Three calls wait for an answer, twice a timeout at most; then the server is left alone.
    assert time.monotonic() - begun < 5
    assert load.calls == 20
    await profiles.put("1", profile_type("not kept"), tenant=tenant_a)
    await profiles.discard("2", tenant=tenant_a)
    assert await profiles.get("1", tenant=tenant_a) is None


async def test_while_it_is_away_those_who_ask_at_once_still_load_once(profiles, redis_process, profile_type, tenant_a):
    redis_process.kill()
    asked, calls, all_have_asked = 0, 0, asyncio.Event()
    find = profiles._store.find

    async def counted(*arguments, **options):
        nonlocal asked
        found = await find(*arguments, **options)
        asked += 1
        if asked == 51:  # everybody, and once more who loads
            all_have_asked.set()
        return found

    async def load():
        nonlocal calls
        calls += 1
        await all_have_asked.wait()
        return profile_type("x")

    profiles._store.find = counted
    await asyncio.gather(*(profiles.get_or_load("1", load, tenant=tenant_a) for _ in range(50)))
    assert calls == 1


async def test_it_is_used_again_when_it_is_back(profiles, redis_process, profile_type, tenant_a):
    redis_process.kill()
    for _ in range(5):
        await profiles.get("1", tenant=tenant_a)
    redis_process.start()

    async def kept():
        await profiles.put("1", profile_type("x"), tenant=tenant_a)
        return await profiles.get("1", tenant=tenant_a) == profile_type("x")

    await until(kept)


@pytest.mark.parametrize("whole_tenant", [True, False])
async def test_a_flush_of_a_frozen_server_holds_when_it_thaws(
    process_of, redis_process, profile_type, tenant_a, tenant_b, whole_tenant
):
    """The stale value is still there when the server answers again; nobody is served it by this process."""
    cache = await process_of(redis_process.url)
    profiles = cache.namespace("profiles", profile_type, ttl=MINUTE)
    for tenant in (tenant_a, tenant_b):
        await profiles.put("1", profile_type("stale"), tenant=tenant)
    redis_process.freeze()
    await (cache.flush(tenant_a) if whole_tenant else profiles.flush(tenant=tenant_a))
    redis_process.thaw()

    async def back():
        # First what the flush is not of, to see that the server answers; then what it is of.
        there = await profiles.get("1", tenant=tenant_b) == profile_type("stale")
        assert await profiles.get("1", tenant=tenant_a) is None
        return there

    await until(back)


async def test_a_postponed_flush_reaches_other_processes_without_being_asked(
    process_of, redis_process, profile_type, tenant_a
):
    cache = await process_of(redis_process.url)
    other = (await process_of(redis_process.url)).namespace("profiles", profile_type, ttl=MINUTE)
    await other.put("1", profile_type("stale"), tenant=tenant_a)
    redis_process.freeze()
    await cache.flush(tenant_a)
    redis_process.thaw()
    keeper = asyncio.create_task(cache.keep())

    async def gone():
        return await other.get("1", tenant=tenant_a) is None

    await until(gone)
    keeper.cancel()


async def test_a_server_that_comes_back_empty_is_no_trouble(profiles, redis_process, profile_type, tenant_a):
    """Scripts, epochs, leases and values are gone at once."""
    await profiles.put("1", profile_type("x"), tenant=tenant_a)
    redis_process.kill()
    redis_process.start()
    load = loading(profile_type("anew"))

    async def cached():
        assert await profiles.get_or_load("1", load, tenant=tenant_a) == profile_type("anew")
        return await profiles.get("1", tenant=tenant_a) is not None

    await until(cached)
