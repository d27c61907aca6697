"""What the replicas of a service share through Redis, where there is one."""

from typing import TYPE_CHECKING

from tenantry._errors import StartupRefused
from tenantry._settings import TenancySettings
from tenantry.cache import CacheStore, MemoryStore
from tenantry.limits import SharedTake

if TYPE_CHECKING:
    from tenantry._redis import RedisServer


def find_redis(settings: TenancySettings) -> "RedisServer | None":
    """The server of `TENANTRY_REDIS_URL`; None where none is set."""
    if settings.redis_url is None:
        return None
    from tenantry._redis import RedisServer  # noqa: PLC0415 - the extra

    return RedisServer(settings.redis_url.get_secret_value())


def cache_store(settings: TenancySettings, service: str, redis: "RedisServer | None") -> CacheStore:
    """Where cached values go: to Redis, else into this process."""
    if redis is None:
        return MemoryStore(
            tenant_entries=settings.cache_tenant_entries,
            tenant_bytes=settings.cache_tenant_bytes,
            max_bytes=settings.cache_bytes,
        )
    from tenantry.cache._redis_store import RedisStore  # noqa: PLC0415 - the extra

    return RedisStore(redis, service, tenant_entries=settings.cache_tenant_entries)


def shared_buckets(settings: TenancySettings, service: str, redis: "RedisServer | None") -> SharedTake | None:
    """Where rate limits are counted for all replicas; None: each counts its part. Raises `StartupRefused`."""
    if settings.rate_limits == "local":
        return None
    if redis is None:
        raise StartupRefused("TENANTRY_RATE_LIMITS is redis and TENANTRY_REDIS_URL is not set")
    from tenantry.limits._shared_buckets import SharedBuckets  # noqa: PLC0415 - the extra

    return SharedBuckets(redis, service)
