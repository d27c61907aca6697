"""Cached values of tenants: in this process or on a Redis server, never without a tenant."""

from tenantry.cache._cache import MAX_TTL, TenantCache
from tenantry.cache._function import CachedFunction
from tenantry.cache._memory import MemoryStore
from tenantry.cache._namespace import Namespace
from tenantry.cache._store import CacheStore, Found

__all__ = ["MAX_TTL", "CacheStore", "CachedFunction", "Found", "MemoryStore", "Namespace", "TenantCache"]
