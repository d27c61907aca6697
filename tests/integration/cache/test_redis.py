"""The cache on a real server, shared by processes."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tenantry.cache._envelope import Codec

MINUTE = timedelta(minutes=1)


def counted(value, gate=None):
    async def load():
        counting.calls += 1
        counting.begun.set()
        if gate is not None:
            await gate.wait()
        return value

    counting: Any = load
    counting.calls = 0
    counting.begun = asyncio.Event()
    return counting


@pytest.fixture
async def two(process_of, redis_url, raw, profile_type):
    """The same namespace in two processes."""
    caches = [await process_of(redis_url), await process_of(redis_url)]
    return [cache.namespace("profiles", profile_type, ttl=MINUTE) for cache in caches]


async def test_a_value_is_found_by_the_other_process_and_by_no_other_tenant(two, profile_type, tenant_a, tenant_b):
    one, other = two
    await one.put("1", profile_type("of a"), tenant=tenant_a)
    assert await other.get("1", tenant=tenant_a) == profile_type("of a")
    assert await other.get("1", tenant=tenant_b) is None


async def test_names_have_the_tenant_first_and_every_key_ends(two, raw, profile_type, tenant_a):
    await two[0].put("some key: with anything", profile_type("x"), tenant=tenant_a)
    names = [name.decode() async for name in raw.scan_iter()]
    assert len(names) == 4  # the value, two epochs, the index
    assert all(name.startswith(f"t:{{{tenant_a.id}}}:") for name in names)
    assert any(":app.profiles:#" in name for name in names)
    for name in names:
        assert 0 < await raw.pttl(name) <= 2 * 86_400_000


async def test_services_do_not_see_one_anothers_values(process_of, redis_url, raw, profile_type, tenant_a):
    one = (await process_of(redis_url, service="app")).namespace("p", profile_type, ttl=MINUTE)
    other = (await process_of(redis_url, service="billing")).namespace("p", profile_type, ttl=MINUTE)
    await one.put("1", profile_type("x"), tenant=tenant_a)
    assert await other.get("1", tenant=tenant_a) is None


@pytest.mark.parametrize("whole_tenant", [True, False])
async def test_a_flush_holds_in_every_process_and_ends_no_other_tenants_values(
    process_of, redis_url, raw, profile_type, tenant_a, tenant_b, whole_tenant
):
    cache, other_cache = await process_of(redis_url), await process_of(redis_url)
    one = cache.namespace("profiles", profile_type, ttl=MINUTE)
    other = other_cache.namespace("profiles", profile_type, ttl=MINUTE)
    untouched = other_cache.namespace("untouched", profile_type, ttl=MINUTE)
    for tenant in (tenant_a, tenant_b):
        await other.put("1", profile_type("x"), tenant=tenant)
        await untouched.put("1", profile_type("x"), tenant=tenant)
    commands = (await raw.info("commandstats")).copy()
    await (cache.flush(tenant_a) if whole_tenant else one.flush(tenant=tenant_a))
    assert await other.get("1", tenant=tenant_a) is None
    assert (await untouched.get("1", tenant=tenant_a) is None) == whole_tenant
    assert await other.get("1", tenant=tenant_b) is not None
    after = await raw.info("commandstats")
    assert not {"cmdstat_scan", "cmdstat_keys", "cmdstat_flushdb"} & (after.keys() - commands.keys())


async def test_processes_load_once(two, profile_type, tenant_a):
    loads = [counted(profile_type("x")), counted(profile_type("x"))]
    results = await asyncio.gather(
        *(two[n % 2].get_or_load("1", loads[n % 2], tenant=tenant_a) for n in range(100)),
    )
    assert results == [profile_type("x")] * 100
    assert sum(load.calls for load in loads) == 1


async def test_a_process_that_is_cancelled_hands_over_to_the_other(two, profile_type, tenant_a):
    stuck = asyncio.Event()
    first, second = counted(None, stuck), counted(profile_type("x"))
    leader = asyncio.create_task(two[0].get_or_load("1", first, tenant=tenant_a))
    await first.begun.wait()
    follower = asyncio.create_task(two[1].get_or_load("1", second, tenant=tenant_a))
    leader.cancel()
    async with asyncio.timeout(2):  # well before the lease would end by itself
        assert await follower == profile_type("x")


async def test_what_was_loaded_before_a_flush_elsewhere_is_not_kept(two, profile_type, tenant_a):
    go = asyncio.Event()
    old = counted(profile_type("old"), go)
    leader = asyncio.create_task(two[0].get_or_load("1", old, tenant=tenant_a))
    await old.begun.wait()
    await two[1].flush(tenant=tenant_a)
    go.set()
    assert await leader == profile_type("old")
    assert await two[0].get("1", tenant=tenant_a) is None


async def test_what_was_loaded_before_a_discard_elsewhere_is_not_kept(two, profile_type, tenant_a):
    go = asyncio.Event()
    old = counted(profile_type("old"), go)
    leader = asyncio.create_task(two[0].get_or_load("1", old, tenant=tenant_a))
    await old.begun.wait()
    await two[1].discard("1", tenant=tenant_a)
    go.set()
    await leader
    assert await two[1].get("1", tenant=tenant_a) is None


async def test_a_process_that_slept_through_its_lease_stores_nothing(
    process_of, redis_url, raw, profile_type, tenant_a
):
    """As after SIGSTOP: the lease was not renewed, another process has loaded since, and its value stays."""
    sleeper = (await process_of(redis_url)).namespace("profiles", profile_type, ttl=MINUTE)
    other = (await process_of(redis_url)).namespace("profiles", profile_type, ttl=MINUTE)
    go = asyncio.Event()
    old = counted(profile_type("old"), go)
    asleep = asyncio.create_task(sleeper.get_or_load("1", old, tenant=tenant_a))
    await old.begun.wait()
    (lease,) = [name async for name in raw.scan_iter(match="*:lease")]
    await raw.delete(lease)
    assert await other.get_or_load("1", counted(profile_type("new")), tenant=tenant_a) == profile_type("new")
    go.set()
    await asleep
    assert await other.get("1", tenant=tenant_a) == profile_type("new")


async def test_a_lease_is_renewed_while_its_holder_lives(process_of, redis_url, raw, profile_type, tenant_a):
    one = (await process_of(redis_url, lease=2.0)).namespace("profiles", profile_type, ttl=MINUTE)
    go = asyncio.Event()
    slow = counted(profile_type("x"), go)
    leader = asyncio.create_task(one.get_or_load("1", slow, tenant=tenant_a))
    await slow.begun.wait()
    (lease,) = [name async for name in raw.scan_iter(match="*:lease")]
    before = await raw.pttl(lease)
    async with asyncio.timeout(5):
        while await raw.pttl(lease) <= before:
            before = min(before, await raw.pttl(lease))
            await asyncio.sleep(0.05)
    go.set()
    await leader
    assert await one.get("1", tenant=tenant_a) == profile_type("x")


async def test_a_tenants_values_are_bounded_and_anothers_stay(
    process_of, redis_url, raw, profile_type, tenant_a, tenant_b
):
    cache = await process_of(redis_url, tenant_entries=10, max_bytes=1_000)
    values = cache.namespace("p", profile_type, ttl=MINUTE)
    await values.put("1", profile_type("quiet"), tenant=tenant_b)
    for n in range(50):
        await values.put(str(n), profile_type("x"), tenant=tenant_a)
    kept = [name async for name in raw.scan_iter(match=f"t:{{{tenant_a.id}}}:*:app.p:*")]
    assert len(kept) == 10
    assert await values.get("49", tenant=tenant_a) is not None
    assert await values.get("1", tenant=tenant_b) == profile_type("quiet")
    await values.put("large", profile_type("x" * 2_000), tenant=tenant_a)
    assert await values.get("large", tenant=tenant_a) is None


@pytest.mark.parametrize("reason", ["tenant", "name", "type", "corrupt"])
async def test_a_value_that_was_planted_is_never_returned(two, raw, profile_type, tenant_a, tenant_b, logs, reason):
    await two[0].put("1", profile_type("mine"), tenant=tenant_a)
    (name,) = [name.decode() async for name in raw.scan_iter(match="*:app.profiles:1")]
    codec = Codec(profile_type)
    planted = {
        "tenant": codec.seal(tenant_b.id, name, profile_type("secret")),
        "name": codec.seal(tenant_a.id, "elsewhere", profile_type("secret")),
        "type": Codec(int).seal(tenant_a.id, name, 1),
        "corrupt": b"anything",
    }[reason]
    await raw.set(name, planted, px=60_000)
    assert await two[1].get("1", tenant=tenant_a) is None
    assert [entry["reason"] for entry in logs if entry["event"] == "cached_value_refused"] == [reason]
    assert not await raw.exists(name)


async def test_lost_epochs_bring_no_old_value_back(two, raw, profile_type, tenant_a):
    await two[0].put("1", profile_type("old"), tenant=tenant_a)
    async for name in raw.scan_iter(match="*:epoch:*"):
        await raw.delete(name)
    assert await two[0].get("1", tenant=tenant_a) is None


async def test_values_follow_the_version_where_they_are_told_to(process_of, redis_url, raw, profile_type, tenant_a):
    rights = (await process_of(redis_url)).namespace("rights", profile_type, ttl=MINUTE, versioned=True)
    await rights.put("1", profile_type("x"), tenant=tenant_a)
    assert await rights.get("1", tenant=msgspec.structs.replace(tenant_a, version=2)) is None
