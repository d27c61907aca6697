"""What a cache promises, on the store in memory."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tenantry import NoTenant, Placement, TenantAlreadyBound, tenant_scope
from tenantry.cache import MemoryStore, TenantCache
from tenantry.cache._envelope import Codec

MINUTE = timedelta(minutes=1)


def changed(tenant, **changes):
    return msgspec.structs.replace(tenant, **changes)


async def yields(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


class Loader:
    """Gives one value after the other and counts."""

    def __init__(self, values):
        self.given = iter(values)
        self.calls = 0

    async def __call__(self) -> Any:
        self.calls += 1
        await asyncio.sleep(0)
        return next(self.given)


def loading(*values):
    return Loader(values)


async def test_the_same_key_text_is_another_value_for_another_tenant(profiles, profile_type, tenant_a, tenant_b):
    with tenant_scope(tenant_a):
        await profiles.put("1", profile_type("of a"))
    with tenant_scope(tenant_b):
        assert await profiles.get("1") is None
        await profiles.put("1", profile_type("of b"))
    assert await profiles.get("1", tenant=tenant_a) == profile_type("of a")
    assert await profiles.get("1", tenant=tenant_b) == profile_type("of b")


async def test_no_call_is_without_a_tenant(cache, profiles, profile_type):
    calls = [
        lambda: profiles.get("1"),
        lambda: profiles.get_or_load("1", loading(profile_type("x"))),
        lambda: profiles.put("1", profile_type("x")),
        lambda: profiles.discard("1"),
        profiles.flush,
        cache.flush,
    ]
    for call in calls:
        with pytest.raises(NoTenant):
            await call()
    assert not any("clear" in name or "all" in name for name in dir(cache) if not name.startswith("_"))


async def test_another_tenant_cannot_be_named_in_the_scope_of_one(profiles, profile_type, tenant_a, tenant_b):
    with tenant_scope(tenant_a):
        for call in (
            lambda: profiles.get("1", tenant=tenant_b),
            lambda: profiles.put("1", profile_type("x"), tenant=tenant_b),
            lambda: profiles.flush(tenant=tenant_b),
        ):
            with pytest.raises(TenantAlreadyBound):
                await call()


async def test_values_end_after_their_time(profiles, profile_type, tenant_a, seconds):
    await profiles.put("1", profile_type("x"), tenant=tenant_a)
    seconds.now += 59
    assert await profiles.get("1", tenant=tenant_a) is not None
    seconds.now += 2
    assert await profiles.get("1", tenant=tenant_a) is None


async def test_times_differ_by_up_to_a_tenth(store, profile_type, tenant_a, seconds):
    draws = iter([0.0, 0.999])
    profiles = TenantCache(store, uniform=lambda: next(draws)).namespace("p", profile_type, ttl=timedelta(seconds=100))
    await profiles.put("1", profile_type("x"), tenant=tenant_a)
    await profiles.put("2", profile_type("y"), tenant=tenant_a)
    seconds.now += 95
    assert await profiles.get("1", tenant=tenant_a) is not None
    assert await profiles.get("2", tenant=tenant_a) is None


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1), timedelta(days=2)])
def test_a_time_to_live_is_needed(cache, profile_type, ttl):
    with pytest.raises(ValueError, match="kept for some time"):
        cache.namespace("p", profile_type, ttl=ttl)


async def test_that_there_is_none_is_known_for_a_short_time_and_per_tenant(profiles, tenant_a, tenant_b, seconds):
    load = loading(None, None, None)
    assert await profiles.get_or_load("1", load, tenant=tenant_a) is None
    assert await profiles.get_or_load("1", load, tenant=tenant_a) is None
    assert load.calls == 1
    await profiles.get_or_load("1", load, tenant=tenant_b)
    assert load.calls == 2
    seconds.now += 6
    await profiles.get_or_load("1", load, tenant=tenant_a)
    assert load.calls == 3


async def test_a_hundred_who_ask_at_once_load_once_for_each_tenant(profiles, profile_type, tenant_a, tenant_b):
    load_a, load_b = loading(profile_type("a")), loading(profile_type("b"))
    results = await asyncio.gather(
        *(profiles.get_or_load("1", load_a, tenant=tenant_a) for _ in range(100)),
        *(profiles.get_or_load("1", load_b, tenant=tenant_b) for _ in range(100)),
    )
    assert (load_a.calls, load_b.calls) == (1, 1)
    assert results == [profile_type("a")] * 100 + [profile_type("b")] * 100


async def test_cancelling_who_loads_strands_nobody(profiles, profile_type, tenant_a):
    stuck = asyncio.Event()

    async def never() -> Any:
        await stuck.wait()

    leader = asyncio.create_task(profiles.get_or_load("1", never, tenant=tenant_a))
    await yields()
    load = loading(profile_type("x"))
    followers = [asyncio.create_task(profiles.get_or_load("1", load, tenant=tenant_a)) for _ in range(5)]
    await yields()
    leader.cancel()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*followers) == [profile_type("x")] * 5
    assert load.calls == 1
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_cancelling_who_waits_disturbs_nobody(profiles, profile_type, tenant_a):
    go = asyncio.Event()

    async def slow() -> Any:
        await go.wait()
        return profile_type("x")

    leader = asyncio.create_task(profiles.get_or_load("1", slow, tenant=tenant_a))
    await yields()
    followers = [asyncio.create_task(profiles.get_or_load("1", slow, tenant=tenant_a)) for _ in range(2)]
    await yields()
    followers[0].cancel()
    go.set()
    assert await leader == await followers[1] == profile_type("x")


async def test_an_error_is_for_all_who_wait_and_is_not_kept(profiles, profile_type, tenant_a):
    async def fails() -> Any:
        await asyncio.sleep(0)
        raise OSError("away")

    results = await asyncio.gather(
        *(profiles.get_or_load("1", fails, tenant=tenant_a) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [OSError] * 3
    assert await profiles.get_or_load("1", loading(profile_type("x")), tenant=tenant_a) == profile_type("x")


async def test_who_waits_for_too_long_loads_too(store, profile_type, tenant_a):
    profiles = TenantCache(store, patience=0.01).namespace("p", profile_type, ttl=MINUTE)
    stuck = asyncio.Event()

    async def never() -> Any:
        await stuck.wait()

    leader = asyncio.create_task(profiles.get_or_load("1", never, tenant=tenant_a))
    await yields()
    assert await profiles.get_or_load("1", loading(profile_type("mine")), tenant=tenant_a) == profile_type("mine")
    leader.cancel()


async def test_a_load_that_needs_its_own_result_does_not_wait_for_itself(profiles, profile_type, tenant_a):
    inner = loading(profile_type("inner"))

    async def outer() -> Any:
        return await profiles.get_or_load("1", inner, tenant=tenant_a)

    async with asyncio.timeout(1):
        assert await profiles.get_or_load("1", outer, tenant=tenant_a) == profile_type("inner")


@pytest.mark.parametrize("what", ["tenant", "namespace", "key"])
async def test_what_was_loaded_before_a_flush_is_not_kept_after_it(
    cache, store, profiles, profile_type, tenant_a, what
):
    go = asyncio.Event()

    async def old() -> Any:
        await go.wait()
        return profile_type("old")

    leader = asyncio.create_task(profiles.get_or_load("1", old, tenant=tenant_a))
    await yields()
    await {
        "tenant": lambda: cache.flush(tenant_a),
        "namespace": lambda: profiles.flush(tenant=tenant_a),
        "key": lambda: profiles.discard("1", tenant=tenant_a),
    }[what]()
    # Who asks after the flush does not join the load from before it.
    assert await profiles.get_or_load("1", loading(profile_type("new")), tenant=tenant_a) == profile_type("new")
    go.set()
    assert await leader == profile_type("old")
    assert await profiles.get("1", tenant=tenant_a) == profile_type("new")
    assert store.entries(tenant_a.id) == 1


async def test_a_flush_is_of_one_tenant_and_one_namespace(cache, profiles, profile_type, tenant_a, tenant_b):
    others = cache.namespace("others", profile_type, ttl=MINUTE)
    for tenant in (tenant_a, tenant_b):
        await profiles.put("1", profile_type("x"), tenant=tenant)
        await others.put("1", profile_type("y"), tenant=tenant)
    await profiles.flush(tenant=tenant_a)
    assert await profiles.get("1", tenant=tenant_a) is None
    assert await others.get("1", tenant=tenant_a) is not None
    assert await profiles.get("1", tenant=tenant_b) is not None
    await cache.flush(tenant_a)
    assert await others.get("1", tenant=tenant_a) is None
    assert await others.get("1", tenant=tenant_b) is not None


async def test_a_flush_costs_the_same_whatever_is_stored(cache, store, profiles, profile_type, tenant_a, tenant_b):
    for n in range(2_000):
        await profiles.put(str(n), profile_type("x"), tenant=tenant_a)
    await profiles.put("1", profile_type("x"), tenant=tenant_b)
    held = store.held_bytes
    await cache.flush(tenant_a)
    assert store.held_bytes < held / 100
    assert await profiles.get("1", tenant=tenant_b) is not None


async def test_values_that_follow_the_tenants_version_end_with_any_change_of_it(cache, profile_type, tenant_a):
    rights = cache.namespace("rights", profile_type, ttl=MINUTE, versioned=True)
    await rights.put("1", profile_type("x"), tenant=tenant_a)
    assert await rights.get("1", tenant=changed(tenant_a, version=2)) is None


async def test_values_end_when_the_tenant_moves(profiles, profile_type, tenant_a):
    await profiles.put("1", profile_type("x"), tenant=tenant_a)
    moved = changed(tenant_a, placement=Placement("other", tenant_a.placement.isolation, 2), version=2)
    assert await profiles.get("1", tenant=moved) is None
    assert await profiles.get("1", tenant=changed(tenant_a, version=3)) is not None


@pytest.mark.parametrize("reason", ["tenant", "name", "type", "corrupt"])
async def test_a_value_that_does_not_belong_is_never_returned(
    store, profiles, profile_type, tenant_a, tenant_b, logs, reason
):
    await profiles.put("1", profile_type("mine"), tenant=tenant_a)
    shelf = store._shelves[tenant_a.id]
    (name,) = shelf.values
    codec = Codec(profile_type)
    planted = {
        "tenant": codec.seal(tenant_b.id, name, profile_type("secret of b")),
        "name": codec.seal(tenant_a.id, name + "x", profile_type("another")),
        "type": Codec(int).seal(tenant_a.id, name, 1),
        "corrupt": b"\x93not msgpack at all",
    }[reason]
    shelf.values[name] = (planted, shelf.values[name][1])
    shelf.bytes += 10_000  # as if it were large: the books are not what is tested here
    store._bytes += 10_000
    assert await profiles.get("1", tenant=tenant_a) is None
    (refusal,) = [entry for entry in logs if entry["event"] == "cached_value_refused"]
    assert refusal["reason"] == reason
    assert "secret" not in str(logs)
    assert await profiles.get_or_load("1", loading(profile_type("anew")), tenant=tenant_a) == profile_type("anew")


async def test_values_are_copies(profiles, profile_type, tenant_a):
    await profiles.put("1", profile_type("x"), tenant=tenant_a)
    (await profiles.get("1", tenant=tenant_a)).name = "changed"
    assert (await profiles.get("1", tenant=tenant_a)).name == "x"


async def test_what_cannot_be_read_back_is_refused_at_once(cache):
    class Anything:
        pass

    with pytest.raises(TypeError):
        cache.namespace("p", Anything, ttl=MINUTE)


async def test_a_loud_tenant_evicts_itself_and_nobody_else(profile_type, tenant_a, tenant_b, seconds):
    store = MemoryStore(tenant_entries=50, tenant_bytes=1 << 20, max_bytes=64 << 10, monotonic=seconds)
    profiles = TenantCache(store).namespace("p", profile_type, ttl=MINUTE)
    for n in range(10):
        await profiles.put(str(n), profile_type("quiet"), tenant=tenant_b)
    for n in range(1_000):
        await profiles.put(str(n), profile_type("x" * 500), tenant=tenant_a)
    assert store.entries(tenant_a.id) == 50
    for n in range(200):
        await profiles.put(f"large-{n}", profile_type("x" * 4_000), tenant=tenant_a)
    assert store.held_bytes <= 64 << 10
    assert [await profiles.get(str(n), tenant=tenant_b) for n in range(10)] == [profile_type("quiet")] * 10
    assert await profiles.get("large-199", tenant=tenant_a) is not None


async def test_the_least_recently_used_goes_first(profile_type, tenant_a, seconds):
    store = MemoryStore(tenant_entries=2, monotonic=seconds)
    profiles = TenantCache(store).namespace("p", profile_type, ttl=MINUTE)
    await profiles.put("1", profile_type("x"), tenant=tenant_a)
    await profiles.put("2", profile_type("x"), tenant=tenant_a)
    await profiles.get("1", tenant=tenant_a)
    await profiles.put("3", profile_type("x"), tenant=tenant_a)
    assert [await profiles.get(key, tenant=tenant_a) is not None for key in "123"] == [True, False, True]


async def test_the_books_of_the_memory_agree(profile_type, tenant_factory, seconds):
    store = MemoryStore(tenant_entries=5, tenant_bytes=8_000, max_bytes=20_000, monotonic=seconds)
    profiles = TenantCache(store).namespace("p", profile_type, ttl=MINUTE)
    tenants = [tenant_factory() for _ in range(8)]
    for n in range(500):
        tenant = tenants[n * 7 % 8]
        await profiles.put(str(n % 9), profile_type("x" * (n * 37 % 3_000)), tenant=tenant)
        if n % 50 == 0:
            await profiles.flush(tenant=tenant)
        if n % 70 == 0:
            await profiles.discard(str(n % 9), tenant=tenant)
        shelves = store._shelves.values()
        assert store.held_bytes == sum(shelf.bytes for shelf in shelves) <= 20_000
        for shelf in shelves:
            assert shelf.bytes == sum(len(name) + len(value) + 300 for name, (value, _) in shelf.values.items())


async def test_a_function_is_called_once_for_each_tenant_and_arguments(cache, profile_type, tenant_a, tenant_b):
    calls = []

    @cache.cached("profiles.by-id", MINUTE)
    async def find_profile(profile_id: UUID, *, full: bool = False) -> profile_type | None:  # type: ignore[valid-type]  # a fixture, read when it runs
        calls.append((profile_id, full))
        return profile_type(str(profile_id)[-1], int(full))

    with tenant_scope(tenant_a):
        first = await find_profile(UUID(int=1))
        assert await find_profile(UUID(int=1), full=False) == first == profile_type("1")
        assert await find_profile(UUID(int=1), full=True) == profile_type("1", 1)
        assert await find_profile(UUID(int=2)) == profile_type("2")
    assert len(calls) == 3
    with tenant_scope(tenant_b):
        await find_profile(UUID(int=1))
        assert len(calls) == 4
        await find_profile.discard(UUID(int=1))
        await find_profile(UUID(int=1))
        assert len(calls) == 5
    with pytest.raises(NoTenant):
        await find_profile(UUID(int=1))


async def test_a_function_with_a_session_says_its_key(cache, tenant_a):
    @cache.cached("counts", MINUTE, key=lambda session, kind: kind)
    async def count(session: object, kind: str) -> int:
        return len(kind)

    with tenant_scope(tenant_a):
        assert await count(object(), "four") == 4
        assert await count(object(), "four") == 4


async def test_a_function_must_say_what_it_returns(cache):
    with pytest.raises(TypeError, match="does not say what it returns"):

        @cache.cached("x", MINUTE)
        async def anything(key: str):
            return key
