"""The cache sweep finds nothing in the product's cached calls, in memory and on Redis, and each way to mix them up."""

import asyncio
from datetime import timedelta

import msgspec
import pytest
from boards_product import cached_purposes
from boards_world import WORDS, run_world

from tenantry import current_tenant, uuid7
from tenantry.cache import MemoryStore, TenantCache
from tenantry.testing import CachedCall, SweepFailed, sweep_cache

MINUTE = timedelta(minutes=1)
BOTH_WORDS = ([WORDS["tenant-a"]], [WORDS["tenant-b"]])


NOBODY = uuid7()


class Answer(msgspec.Struct):
    text: str


async def load():
    return Answer(f"made of {WORDS[current_tenant().slug]}")


async def found(world, call, cache=None):
    with pytest.raises(SweepFailed) as raised:
        await sweep_cache([call], world.a, world.b, BOTH_WORDS, cache=cache)
    return raised.value.report


@pytest.mark.parametrize("kept", ["memory", "redis"])
async def test_nothing_is_found_in_the_product(request, database, tmp_path, kept):
    settings = {} if kept == "memory" else {"redis_url": request.getfixturevalue("redis_url")}
    await database.truncate()
    async with run_world(database, tmp_path, settings=settings) as world:
        for tenant in (world.a, world.b):
            await world.plant(tenant)
        cache = world.tenancy.cache
        call = CachedCall("purposes", cached_purposes(world.tenancy), cache.flush)
        report = await sweep_cache([call], world.a, world.b, BOTH_WORDS, cache=cache)
    assert report.tried["purposes"] > 50


async def test_a_cache_without_the_tenant_in_its_keys_is_found(world):
    kept = {}

    async def read(key):
        if key not in kept:
            kept[key] = await load()
        return kept[key]

    report = await found(world, CachedCall("kept", read))
    assert any("gives B what is the other's" in leak.seen for leak in report.leaks), report


async def test_a_cache_that_takes_the_tenant_from_who_asked_first_is_found(world):
    """Right one after the other, wrong at the same time: the load of one is joined by the other."""
    loading: dict[str, asyncio.Future[Answer]] = {}

    async def read(key):
        own = f"{key} {current_tenant().id}"
        if own not in loading:
            waiting = next((each for other, each in loading.items() if other.startswith(f"{key} ")), None)
            if waiting is not None and not waiting.done():
                return await waiting
            loading[own] = asyncio.ensure_future(later())
        return await loading[own]

    async def later():
        await asyncio.sleep(0)
        return await load()

    report = await found(world, CachedCall("joined", read))
    assert {leak.position for leak in report.leaks} == {"at the same time"}, report


class SharedStore(MemoryStore):
    """A store whose keys leave the tenant out."""

    async def find(self, tenant_id, namespace, key, stamp, *, lease):
        return await super().find(NOBODY, namespace, key, stamp, lease=lease)

    async def store(self, tenant_id, namespace, found, value, seconds):
        return await super().store(NOBODY, namespace, found, value, seconds)


async def test_a_store_without_the_tenant_in_its_keys_is_found(world):
    """The cache refuses what it gives, so nothing is mixed up; but the tenants take each other's places."""
    cache = TenantCache(SharedStore(), patience=0.01)
    values = cache.namespace("shared", Answer, ttl=MINUTE)
    report = await found(world, CachedCall("shared", lambda key: values.get_or_load(key, load)), cache)
    assert any(leak.position == "store" and "the same value" in leak.seen for leak in report.leaks), report


async def test_a_flush_that_forgets_everybody_is_found(world):
    store = MemoryStore()
    cache = TenantCache(store)
    values = cache.namespace("kept", Answer, ttl=MINUTE)

    async def flush():
        for tenant in (world.a, world.b):
            await store.flush(tenant.id, None)

    report = await found(world, CachedCall("kept", lambda key: values.get_or_load(key, load), flush), cache)
    assert any(leak.position == "flush" and "forgotten what is B's" in leak.seen for leak in report.leaks), report


async def test_a_flush_that_forgets_nothing_is_found(world):
    cache = TenantCache(MemoryStore())
    values = cache.namespace("kept", Answer, ttl=MINUTE)

    async def flush():
        return None

    report = await found(world, CachedCall("kept", lambda key: values.get_or_load(key, load), flush), cache)
    assert any("has not forgotten what is A's" in leak.seen for leak in report.leaks), report


async def test_a_poisoned_value_that_is_served_is_found(world, monkeypatch):
    """What the library's own check of values is for: without it the store's mistake is the caller's."""
    cache = TenantCache(MemoryStore())
    values = cache.namespace("trusted", Answer, ttl=MINUTE)
    monkeypatch.setattr(
        "tenantry.cache._envelope.Codec.open",
        lambda codec, tenant_id, name, stored: codec._decode(msgspec.msgpack.decode(stored, type=list[msgspec.Raw])[4]),
    )
    report = await found(world, CachedCall("trusted", lambda key: values.get_or_load(key, load), cache.flush), cache)
    assert any(leak.position == "poisoned value" for leak in report.leaks), report


async def test_calls_that_show_nothing_or_use_another_cache_prove_nothing(world):
    async def silent(key):
        return Answer("nothing")

    assert (await found(world, CachedCall("silent", silent))).blind

    report = await found(world, CachedCall("elsewhere", lambda key: load()), TenantCache(MemoryStore()))
    assert any("not in the cache that was given" in each.seen for each in report.blind), report
