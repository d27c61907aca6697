"""The same token buckets on a Redis server: one for all processes, exact whatever their number."""

import math
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from prometheus_client import Counter

from tenantry._redis import RedisAway, RedisServer, Script
from tenantry.limits._buckets import MICRO, Policy, TokenBuckets, Verdict

_ALONE: Final = Counter(
    "tenantry_limits_alone_total", "Requests that were judged by this process alone, the Redis server being away."
)
_MAX_REFUSALS: Final = 10_000

# The rules of `_buckets.decide`, in microseconds of the server's clock: those of its callers need not agree. Setting
# it back forgives nothing and blocks nobody. The key lives until the debt has leaked away, then there is no bucket.
_TAKE: Final = Script("""
local rate, burst, largest, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local known = redis.call('HMGET', KEYS[1], 'debt', 'at')
local debt = 0
if known[1] then
  local elapsed = math.max(0, now - tonumber(known[2]))
  debt = math.max(0, tonumber(known[1]) - math.floor(elapsed * rate / 1000000))
end
local owed = debt + cost * 1000000
if owed <= burst or (debt == 0 and cost * 1000000 <= largest) then
  redis.call('HSET', KEYS[1], 'debt', string.format('%.0f', owed), 'at', string.format('%.0f', now))
  redis.call('PEXPIRE', KEYS[1], math.ceil(owed * 1000 / rate) + 1000)
  return {1, string.format('%.0f', owed)}
end
if known[2] and tonumber(known[2]) > now then
  redis.call('HSET', KEYS[1], 'at', string.format('%.0f', now))
end
return {0, string.format('%.0f', debt)}
""")


class SharedBuckets:
    """Takes from the server's bucket; while it is away, from this process's part of the limit, never without limit.

    What passes beyond the limit is bounded: when the server goes away, each process starts with its part of the burst
    (`TENANTRY_REPLICAS`), so at most one burst more; when it comes back without its data, one burst again.
    """

    def __init__(
        self,
        server: RedisServer,
        service: str,
        *,
        alone: TokenBuckets | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`alone` are the buckets that this process judges by while the server is away."""
        self._server = server
        self._service = service
        self._alone = alone if alone is not None else TokenBuckets(time.monotonic_ns)
        self._monotonic = monotonic
        # (tenant, policy) -> until when no request of this cost can pass: asking again would change nothing.
        self._refused: dict[tuple[UUID, Policy], tuple[float, int]] = {}

    async def take(self, tenant_id: UUID, policy: Policy, part: Policy, cost: int) -> Verdict:
        """Takes `cost` units from the tenant's bucket, or nothing. `part` is the policy of this process alone."""
        now = self._monotonic()
        known = self._refused.get((tenant_id, policy))
        if known is not None and now < known[0] and cost >= known[1]:
            return Verdict(False, known[1] - 1, known[0] - now)
        try:
            passed, owed = await self._server.run(
                _TAKE,
                [f"limit:{{{tenant_id}}}:{self._service}:{policy.name}"],
                [policy.rate, policy.burst, policy.largest * MICRO, cost],
            )
        except RedisAway:
            _ALONE.inc()
            return self._alone.take(tenant_id, part, cost)
        debt = int(owed)
        remaining = max(0, policy.burst - debt) // MICRO
        if passed:
            self._refused.pop((tenant_id, policy), None)
            return Verdict(True, remaining, debt / policy.rate)
        wait = math.ceil((debt - max(0, policy.burst - cost * MICRO)) / policy.rate * 1_000_000) / 1_000_000
        self._remember(now, (tenant_id, policy), wait, cost)
        return Verdict(False, remaining, wait)

    def _remember(self, now: float, key: tuple[UUID, Policy], wait: float, cost: int) -> None:
        if len(self._refused) >= _MAX_REFUSALS:
            self._refused = {known: refusal for known, refusal in self._refused.items() if refusal[0] > now}
            if len(self._refused) >= _MAX_REFUSALS:
                self._refused.clear()
        self._refused[key] = (now + wait, cost)
