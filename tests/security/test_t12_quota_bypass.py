"""T12: many keys, workers and processes at one limit, with and without the server that counts for all of them.

What passes beyond the limit is bounded: nothing while the server counts; a burst more where it goes away.
"""

import asyncio
from contextlib import AsyncExitStack

import pytest
import structlog
from redis.asyncio import Redis
from redis_process import running_redis

from tenantry import LocalDirectory, Operation, RateLimited, Tier
from tenantry._redis import RedisServer
from tenantry.limits import FairGate, Limiter, Policy, Rate, TokenBuckets
from tenantry.limits._shared_buckets import SharedBuckets

PROCESSES = 4
# How long a process waits for the server. One that gives up in a busy moment lets its part of a burst more pass.
PATIENCE = 30.0
# Slow enough that nothing leaks back while a test runs.
RATE = {"rate": 0.001, "burst": 40}


@pytest.fixture(autouse=True)
def _quiet():
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
async def processes(tenant_a, tenant_b):
    """`processes(url)`: the limiters of all processes of a service; without a URL each enforces its part."""
    async with AsyncExitStack() as stack:

        async def build(url=None, replicas=PROCESSES, **rate):
            directory = LocalDirectory.of(
                [tenant_a, tenant_b], [Tier(name="standard", version=1, limits={"requests": {"read": RATE | rate}})]
            )
            limiters = []
            for _ in range(PROCESSES):
                shared = None
                if url is not None:
                    shared = SharedBuckets(await stack.enter_async_context(RedisServer(url, timeout=PATIENCE)), "app")
                gate = FairGate(1_000, max_waiting=1_000, wait=5.0)
                limiters.append(Limiter("app", directory, gate=gate, replicas=replicas, shared=shared))
            return limiters

        yield build


@pytest.fixture
async def clean_url(redis_url):
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()
    return redis_url


async def race(limiters, tenant, *, each=50, cost=1):
    """How many requests pass of those that all processes get at the same time."""

    async def ask(limiter):
        try:
            (await limiter.admit(tenant, Operation.READ, cost)).place.release()
        except RateLimited as refused:
            return 0 if int(refused.headers["Retry-After"]) >= 1 else -1_000
        return 1

    return sum(await asyncio.gather(*(ask(limiter) for limiter in limiters for _ in range(each))))


async def test_a_race_over_all_processes_lets_exactly_the_burst_pass(processes, clean_url, tenant_a, tenant_b):
    limiters = await processes(clean_url)
    assert await race(limiters, tenant_a) == 40
    assert await race(limiters, tenant_a) == 0
    assert await race(limiters, tenant_b) == 40


async def test_batches_count_by_their_size_over_all_processes(processes, clean_url, tenant_a):
    limiters = await processes(clean_url)
    assert await race(limiters, tenant_a, cost=7) == 5
    assert await race(limiters, tenant_a, cost=1) == 5


async def test_alone_each_process_enforces_its_part(processes, tenant_a):
    assert await race(await processes(), tenant_a) == 40


async def test_a_burst_that_cannot_be_divided_is_exceeded_by_one_for_each_process_at_most(processes, tenant_a):
    assert await race(await processes(burst=2), tenant_a) == PROCESSES


async def test_without_the_server_a_burst_more_passes_and_not_without_end(processes, tenant_a, tmp_path):
    with running_redis(tmp_path) as redis:
        limiters = await processes(redis.url)
        assert await race(limiters, tenant_a) == 40
        redis.kill()
        # What was refused before goes on to be refused without asking; a request of another size is judged anew.
        assert await race(limiters, tenant_a, each=200) <= 40
        assert await race(limiters, tenant_a, each=200) == 0


async def test_the_server_that_comes_back_counts_again(processes, tenant_a, tenant_b, tmp_path):
    with running_redis(tmp_path) as redis:
        limiters = await processes(redis.url)
        redis.kill()
        alone = await race(limiters, tenant_b, each=30)
        assert alone == 40
        redis.start()
        async with asyncio.timeout(30):
            while True:
                async with Redis.from_url(redis.url) as client:
                    await race(limiters, tenant_a, each=1)
                    if await client.exists(f"limit:{{{tenant_a.id}}}:app:read"):
                        break
                await asyncio.sleep(0.05)


async def test_the_server_and_a_process_decide_alike(clean_url, tenant_a):
    """One rule, two interpretations: the same requests at the same instants have the same fate."""
    async with RedisServer(clean_url, timeout=PATIENCE) as server, Redis.from_url(clean_url) as client:
        shared = SharedBuckets(server, "app", monotonic=lambda: float("inf"))  # remembers no refusal
        now = 0
        local = TokenBuckets(lambda: now)
        policy = Policy.of("read", Rate(0.001, burst=30))
        for n in range(60):
            cost = n * 7 % 5 + 1
            there = await shared.take(tenant_a.id, policy, policy, cost)
            here = local.take(tenant_a.id, policy, cost)
            assert (there.allowed, there.remaining) == (here.allowed, here.remaining)
            assert there.wait == pytest.approx(here.wait, abs=5)  # the server's clock runs
        key = f"limit:{{{tenant_a.id}}}:app:read"
        # Time passes: what was taken lies 10,000 seconds back.
        await client.hincrby(key, "at", -10_000 * 1_000_000)
        now += 10_000 * 1_000_000_000
        there, here = await shared.take(tenant_a.id, policy, policy, 4), local.take(tenant_a.id, policy, 4)
        assert (there.allowed, there.remaining) == (here.allowed, here.remaining) == (True, 6)


async def test_a_server_whose_clock_is_set_back_forgives_nothing_and_blocks_nobody(clean_url, tenant_a):
    async with RedisServer(clean_url, timeout=PATIENCE) as server, Redis.from_url(clean_url) as client:
        shared = SharedBuckets(server, "app", monotonic=lambda: float("inf"))
        policy = Policy.of("read", Rate(1_000, burst=1_000))
        assert (await shared.take(tenant_a.id, policy, policy, 1_000)).allowed
        key = f"limit:{{{tenant_a.id}}}:app:read"
        await client.hincrby(key, "at", 3_600 * 1_000_000)  # an hour ahead of the clock
        assert not (await shared.take(tenant_a.id, policy, policy, 1_000)).allowed
        async with asyncio.timeout(10):
            while not (await shared.take(tenant_a.id, policy, policy, 1)).allowed:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
