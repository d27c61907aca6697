"""A Redis server, and processes of a service that share it: each has its own connections and cache."""

from contextlib import AsyncExitStack

import msgspec
import pytest
import structlog
from redis.asyncio import Redis
from redis_process import running_redis

from tenantry._redis import RedisServer
from tenantry.cache import TenantCache
from tenantry.cache._redis_store import RedisStore


class Profile(msgspec.Struct):
    name: str


@pytest.fixture(autouse=True)
def logs():
    with structlog.testing.capture_logs() as logs:
        yield logs


@pytest.fixture
def redis_process(tmp_path):
    with running_redis(tmp_path) as process:
        yield process


@pytest.fixture
async def raw(redis_url):
    """A plain client, to look behind the cache."""
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()
        yield client


@pytest.fixture
async def process_of():
    """`process_of(url)`: the cache of one more process of the service."""
    async with AsyncExitStack() as stack:

        async def build(url, *, service="app", patience=5.0, **options):
            server = await stack.enter_async_context(RedisServer(url))
            return TenantCache(RedisStore(server, service, **options), patience=patience, uniform=lambda: 0.0)

        yield build


@pytest.fixture
def profile_type():
    return Profile
