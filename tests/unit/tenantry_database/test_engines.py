"""The cache of engines: its bounds, and that an engine in use is never closed."""

import asyncio

import pytest

from tenantry.database import ConnectionsExhausted
from tenantry.database._engines import TenantEngines
from tenantry.testing import eventually


class Engine:
    """Stands in for SQLAlchemy's: it only knows whether it was closed."""

    def __init__(self, url):
        self.url = url
        self.disposed = False

    async def dispose(self):
        await asyncio.sleep(0)
        self.disposed = True


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Cache(TenantEngines):
    def __init__(self, **limits):
        self.made = []
        self.clock = Clock()
        defaults = {"engines": 3, "connections": 4, "pool_size": 2, "idle": 3600.0, "timeout": 5.0}
        super().__init__(self._make, monotonic=self.clock, **(defaults | limits))

    def _make(self, url):
        engine = Engine(url)
        self.made.append(engine)
        return engine


async def hold(cache, url, until):
    async with cache.lease(url) as engine:
        await until.wait()
        assert not engine.disposed
        return engine


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_concurrent_first_use_makes_one_engine():
    cache, end = Cache(), asyncio.Event()
    tasks = [asyncio.create_task(hold(cache, "a", end)) for _ in range(10)]
    await settle()
    end.set()
    assert len(set(await asyncio.gather(*tasks))) == 1
    assert len(cache.made) == 1
    await cache.dispose()


async def test_the_least_recently_used_goes_first():
    cache = Cache()
    for url in ("a", "b", "c", "a", "d"):
        async with cache.lease(url):
            pass
    await settle()
    assert [engine.url for engine in cache.made if engine.disposed] == ["b"]
    assert cache.open_engines == 3
    await cache.dispose()
    assert all(engine.disposed for engine in cache.made)


async def test_an_engine_in_use_is_never_disposed():
    cache, end = Cache(engines=1), asyncio.Event()
    holder = asyncio.create_task(hold(cache, "a", end))
    await settle()
    waiter = asyncio.create_task(hold(cache, "b", end))
    await settle()
    assert [engine.url for engine in cache.made] == ["a"]
    assert not cache.made[0].disposed
    end.set()
    await holder
    assert (await waiter).url == "b"
    await settle()
    assert cache.made[0].disposed
    await cache.dispose()


async def test_connections_of_all_engines_are_capped():
    cache, end = Cache(engines=10, connections=3, pool_size=2), asyncio.Event()
    tasks = [asyncio.create_task(hold(cache, url, end)) for url in "aabbcc"]
    await settle()
    assert cache.connections == 3
    assert cache.open_engines == 2
    end.set()
    await asyncio.gather(*tasks)
    assert cache.connections <= 3
    await cache.dispose()


async def test_idle_connections_count_until_they_are_closed():
    cache = Cache(engines=10, connections=2, pool_size=2)
    for url in "abc":
        async with cache.lease(url):
            assert cache.connections <= 2
    await settle()
    assert [engine.url for engine in cache.made if engine.disposed] == ["a"]
    await cache.dispose()


async def test_a_pools_own_queue_takes_what_is_more_than_its_size():
    """Leases beyond an engine's pool wait in that pool and hold nothing of the cap."""
    cache, end = Cache(connections=2, pool_size=2), asyncio.Event()
    tasks = [asyncio.create_task(hold(cache, "a", end)) for _ in range(5)]
    await settle()
    assert cache.connections == 2
    end.set()
    await asyncio.gather(*tasks)
    await cache.dispose()


async def test_waiting_ends_with_an_error():
    cache, end = Cache(engines=1, timeout=0.01), asyncio.Event()
    holder = asyncio.create_task(hold(cache, "a", end))
    await settle()
    with pytest.raises(ConnectionsExhausted):
        async with cache.lease("b"):
            pass
    end.set()
    await holder
    await cache.dispose()


async def test_a_cancelled_waiter_leaves_nothing_behind():
    cache, end = Cache(engines=1), asyncio.Event()
    holder = asyncio.create_task(hold(cache, "a", end))
    await settle()
    waiter = asyncio.create_task(hold(cache, "b", end))
    await settle()
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    end.set()
    await holder
    async with cache.lease("c"):
        pass
    assert cache.open_engines == 1
    await cache.dispose()


async def test_idle_engines_are_evicted_but_not_those_in_use():
    cache, end = Cache(idle=60.0), asyncio.Event()
    async with cache.lease("idle"):
        pass
    holder = asyncio.create_task(hold(cache, "used", end))
    await settle()
    cache.clock.now = 59.0
    await cache.evict_idle()
    assert cache.open_engines == 2
    cache.clock.now = 60.0
    await cache.evict_idle()
    assert [engine.url for engine in cache.made if engine.disposed] == ["idle"]
    end.set()
    await holder
    await cache.dispose()


async def test_a_busy_tenant_does_not_keep_the_others_out():
    """With the only connection always wanted by A, B is served after the lease that A has, and A after it again."""
    cache, order = Cache(connections=1, pool_size=1), []

    async def use(url, turn):
        async with cache.lease(url):
            order.append(url)
            await turn.wait()

    turns = [asyncio.Event() for _ in range(6)]
    tasks = []
    for url, turn in zip("aabaaa", turns, strict=True):
        tasks.append(asyncio.create_task(use(url, turn)))
        await settle()
    assert order == ["a", "a"], "what comes after B waits behind it"
    for turn in turns:
        turn.set()
        await settle()
    await asyncio.gather(*tasks)
    assert order == ["a", "a", "b", "a", "a", "a"]
    await cache.dispose()


async def test_eviction_happens_by_itself():
    cache = Cache(idle=0.0)
    async with cache.lease("a"):
        pass
    await eventually(lambda: cache.open_engines == 0 and cache.connections == 0, within=5, interval=0.001)
    await cache.dispose()
