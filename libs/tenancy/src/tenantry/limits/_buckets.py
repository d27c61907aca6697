"""Token buckets, in whole numbers: nanoseconds and millionths of a unit.

A bucket is the debt of a tenant: what it took and what has not leaked away since. A request passes where the debt stays
within the burst, so in any time t at most `burst + rate * t` units pass. All rounding is against the tenant, by less
than a millionth of a unit for each request that passed.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Self
from uuid import UUID

from tenantry.limits._document import Rate

MICRO: Final = 1_000_000
_NANOS: Final = 1_000_000_000
_MIN_SWEEP: Final = 1_024


class Policy(NamedTuple):
    """A rate as a bucket enforces it. Compared by value: another policy means that a tier has changed."""

    name: str
    rate: int
    """Millionths of a unit a second."""
    burst: int
    """Millionths of a unit."""
    largest: int
    """Units that one request may cost at most: a process with a part of the burst takes the whole one from idle."""

    @classmethod
    def of(cls, name: str, rate: Rate, *, share: int = 1) -> Self:
        """The policy of one of `share` processes that divide `rate` among them."""
        burst = rate.burst if rate.burst is not None else max(1, int(rate.rate))
        return cls(
            name,
            rate=max(1, round(rate.rate * MICRO) // share),
            burst=max(MICRO, burst * MICRO // share),
            largest=burst,
        )


class Verdict(NamedTuple):
    allowed: bool
    remaining: int
    """Whole units that would pass now."""
    wait: float
    """Seconds: until the request would pass where it was refused, until the bucket is as new where it was not."""


def leak(debt: int, nanoseconds: int, rate: int) -> int:
    """What is left of `debt` after a time."""
    return max(0, debt - max(0, nanoseconds) * rate // _NANOS)


def decide(policy: Policy, debt: int, cost: int) -> tuple[Verdict, int]:
    """Whether `cost` units pass on a `debt` that has leaked until now, and the debt after it."""
    owed = debt + cost * MICRO
    if owed <= policy.burst or (debt == 0 and cost <= policy.largest):
        remaining = max(0, policy.burst - owed) // MICRO
        return Verdict(True, remaining, owed / policy.rate), owed
    passes_at = max(0, policy.burst - cost * MICRO)
    wait = -(-(debt - passes_at) * _NANOS // policy.rate)
    return Verdict(False, max(0, policy.burst - debt) // MICRO, wait / _NANOS), debt


class TokenBuckets:
    """The buckets of one process. A bucket without debt is no bucket, so only tenants that are busy take memory."""

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._now = monotonic_ns
        # [debt, when it was worked out, when it will have leaked away]
        self._buckets: dict[tuple[UUID, str], list[int]] = {}
        self._sweep_at = _MIN_SWEEP

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, tenant_id: UUID, policy: Policy, cost: int = 1) -> Verdict:
        """Takes `cost` units from the tenant's bucket, or nothing."""
        now = self._now()
        key = (tenant_id, policy.name)
        bucket = self._buckets.get(key)
        debt = 0 if bucket is None else leak(bucket[0], now - bucket[1], policy.rate)
        verdict, debt = decide(policy, debt, cost)
        if verdict.allowed:
            free_at = now + debt * _NANOS // policy.rate + 1
            if bucket is None:
                self._make_room(now)
                self._buckets[key] = [debt, now, free_at]
            else:
                bucket[:] = (debt, now, free_at)
        return verdict

    def _make_room(self, now: int) -> None:
        # At every doubling, so that the sweeps cost a constant for each bucket that was made.
        if len(self._buckets) < self._sweep_at:
            return
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket[2] > now}
        self._sweep_at = max(_MIN_SWEEP, 2 * len(self._buckets))
