"""Values on a Redis server, shared by the processes of a service. Each call is one script: one round trip, atomic.

Epochs are random, so one that the server has lost never comes back with the values of its time. A tenant's values are
listed by the time at which they end; where they are too many, those that end first go. While the server is away
nothing is found and nothing is stored; a flush is remembered and done before anything else is read.
"""

import asyncio
import time
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Final
from uuid import UUID

import structlog
from prometheus_client import Gauge

from tenantry._redis import RedisAway, RedisServer, Script
from tenantry.cache._keys import key_part, tenant_name
from tenantry.cache._store import Found

log = structlog.get_logger(__name__)

MAX_SECONDS: Final = 86_400
_MAX_PENDING: Final = 10_000
_RETRY_SECONDS: Final = 1.0
_PENDING: Final = Gauge(
    "tenantry_cache_pending_flushes", "Flushes that wait for the Redis server to come back, in this process."
)

# Every script takes the two epochs first and gives them a value where they have none.
_EPOCH: Final = """
local function epoch(key, fresh)
  local known = redis.call('GET', key)
  if not known then
    known = fresh
    redis.call('SET', key, known, 'PX', ARGV[1])
  end
  return known
end
local current = epoch(KEYS[1], ARGV[2]) .. '.' .. epoch(KEYS[2], ARGV[2]) .. '.' .. ARGV[3]
"""
_FIND: Final = Script(
    _EPOCH
    + """
local name = ARGV[4] .. current .. ':' .. ARGV[5]
local value = redis.call('GET', name)
if value then return {current, name, 1, value} end
if ARGV[6] ~= '' and redis.call('SET', name .. ':lease', ARGV[6], 'NX', 'PX', ARGV[7]) then
  return {current, name, 0, ARGV[6]}
end
return {current, name, 0, ''}
"""
)
_STORE: Final = Script(
    _EPOCH
    + """
local name, lease = ARGV[4], ARGV[4] .. ':lease'
if redis.call('GET', lease) ~= ARGV[6] then return 0 end
redis.call('DEL', lease)
if current ~= ARGV[5] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', name, ARGV[7], 'PX', ARGV[8])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[8]), name)
redis.call('PEXPIRE', KEYS[3], ARGV[1])
local over = redis.call('ZCARD', KEYS[3]) - tonumber(ARGV[9])
if over > 0 then
  local first = redis.call('ZPOPMIN', KEYS[3], math.min(over, 100))
  for n = 1, #first, 2 do redis.call('DEL', first[n]) end
end
return 1
"""
)
_RENEW: Final = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
""")
_ABANDON: Final = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")
_DISCARD: Final = Script(
    _EPOCH
    + """
local name = ARGV[4] .. current .. ':' .. ARGV[5]
redis.call('ZREM', KEYS[3], name)
return redis.call('DEL', name, name .. ':lease')
"""
)
_FLUSH: Final = Script("""
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if KEYS[2] then redis.call('UNLINK', KEYS[2]) end
return 1
""")

# Longer than any value lives: an epoch that ends takes no value with it that could come back.
_EPOCH_MILLISECONDS: Final = 2 * MAX_SECONDS * 1_000


class RedisStore:
    """At most `tenant_entries` values of `max_bytes` each are kept of one tenant and service.

    A lease lasts `lease` seconds and is renewed while its holder lives; a holder that was stopped for longer stores
    nothing any more.
    """

    def __init__(
        self,
        server: RedisServer,
        service: str,
        *,
        tenant_entries: int = 10_000,
        max_bytes: int = 1 << 20,
        lease: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._service = service
        self._tenant_entries = tenant_entries
        self._max_bytes = max_bytes
        self._lease = round(lease * 1_000)
        self._monotonic = monotonic
        # Flushes that the server has not heard of: until it has, this process reads nothing of that tenant.
        self._pending: dict[tuple[UUID, str | None], None] = {}

    async def find(self, tenant_id: UUID, namespace: str, key: str, stamp: str, *, lease: bool) -> Found:
        right = token_hex(8) if lease else ""
        prefix, rest = f"t:{{{tenant_id}}}:", f"{self._space(namespace)}:{key_part(key)}"
        try:
            await self._catch_up(tenant_id, namespace)
            epoch, name, found, value = await self._run(
                _FIND, tenant_id, namespace, stamp, prefix, rest, right, self._lease
            )
        except RedisAway:
            return Found(None)
        if found:
            return Found(epoch.decode(), name.decode(), value)
        return Found(epoch.decode(), name.decode(), lease=value.decode() or None)

    async def renew(self, found: Found) -> None:
        await self._on_lease(_RENEW, found, self._lease)

    async def abandon(self, tenant_id: UUID, found: Found) -> None:  # noqa: ARG002 - its name says it
        await self._on_lease(_ABANDON, found)

    async def store(self, tenant_id: UUID, namespace: str, found: Found, value: bytes, seconds: float) -> bool:
        if found.epoch is None or found.lease is None:
            return False
        if len(value) > self._max_bytes:
            await self.abandon(tenant_id, found)
            return False
        milliseconds = max(1, round(min(seconds, MAX_SECONDS) * 1_000))
        stamp = found.epoch.split(".", 2)[2]
        try:
            await self._catch_up(tenant_id, namespace)
            return bool(
                await self._run(
                    _STORE, tenant_id, namespace, stamp,
                    found.name, found.epoch, found.lease, value, milliseconds, self._tenant_entries,
                )
            )  # fmt: skip
        except RedisAway:
            return False

    async def discard(self, tenant_id: UUID, namespace: str, key: str, stamp: str) -> None:
        prefix, rest = f"t:{{{tenant_id}}}:", f"{self._space(namespace)}:{key_part(key)}"
        try:
            await self._run(_DISCARD, tenant_id, namespace, stamp, prefix, rest)
        except RedisAway:
            self._postpone(tenant_id, namespace)

    async def flush(self, tenant_id: UUID, namespace: str | None) -> None:
        try:
            await self._flush(tenant_id, namespace)
        except RedisAway:
            self._postpone(tenant_id, namespace)

    async def flush_pending(self) -> None:
        """Does the flushes that are left, as far as the server answers."""
        for tenant_id, namespace in list(self._pending):
            try:
                await self._catch_up(tenant_id, namespace)
            except RedisAway:
                return

    async def keep(self) -> None:
        """Retries flushes that the server has not heard of, every second, until cancelled."""
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            await self.flush_pending()

    async def _catch_up(self, tenant_id: UUID, namespace: str | None) -> None:
        if not self._pending:
            return
        for pending in ((tenant_id, None), (tenant_id, namespace)):
            if pending in self._pending:
                await self._flush(*pending)
                self._pending.pop(pending, None)
                _PENDING.set(len(self._pending))

    def _postpone(self, tenant_id: UUID, namespace: str | None) -> None:
        if len(self._pending) >= _MAX_PENDING and (tenant_id, namespace) not in self._pending:
            # Whole tenants instead of namespaces: more is forgotten than was asked, and memory stays bounded by them.
            self._pending = dict.fromkeys((tenant, None) for tenant, _ in self._pending)
            namespace = None
        self._pending[tenant_id, namespace] = None
        _PENDING.set(len(self._pending))
        log.warning("flush_postponed", tenant_id=str(tenant_id), namespace=namespace)

    async def _flush(self, tenant_id: UUID, namespace: str | None) -> None:
        if namespace is None:
            keys = [self._epoch_name(tenant_id), tenant_name(tenant_id, "values", self._service)]
        else:
            keys = [self._epoch_name(tenant_id, namespace)]
        await self._server.run(_FLUSH, keys, [token_hex(8), _EPOCH_MILLISECONDS])

    async def _run(
        self, script: Script, tenant_id: UUID, namespace: str, stamp: str, *arguments: str | bytes | int
    ) -> Any:
        keys = [
            self._epoch_name(tenant_id),
            self._epoch_name(tenant_id, namespace),
            tenant_name(tenant_id, "values", self._service),
        ]
        return await self._server.run(script, keys, [_EPOCH_MILLISECONDS, token_hex(8), stamp, *arguments])

    async def _on_lease(self, script: Script, found: Found, *arguments: int) -> None:
        if found.lease is None:
            return
        try:
            await self._server.run(script, [f"{found.name}:lease"], [found.lease, *arguments])
        except RedisAway:
            return  # it ends by itself

    def _epoch_name(self, tenant_id: UUID, namespace: str | None = None) -> str:
        return tenant_name(tenant_id, "epoch", self._service, *([namespace] if namespace is not None else []))

    def _space(self, namespace: str) -> str:
        return f"{self._service}.{namespace}"
