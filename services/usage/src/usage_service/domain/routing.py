"""How many buckets a tenant's events need: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """`hot_rate` is what one bucket should carry, in events a second; `most` is the number of partitions."""

    hot_rate: int
    hot_for: timedelta
    quiet_for: timedelta
    most: int


def wanted_buckets(buckets: int, lately: Sequence[int], quiet: Sequence[int] | None, policy: RoutingPolicy) -> int:
    """How many buckets a tenant with `buckets` should have.

    `lately` are its rates in each part of the last `hot_for`: where every one is too much for its buckets, they are
    doubled until the smallest is not. `quiet` are those of the last `quiet_for`, None where the present buckets are
    not as old: they are halved as long as half of what makes hot would do, for it is not to be back at once.
    """
    wanted = buckets
    if lately:
        while wanted < policy.most and min(lately) > policy.hot_rate * wanted:
            wanted = min(2 * wanted, policy.most)
    if wanted == buckets and quiet is not None:
        while wanted > 1 and 2 * max(quiet, default=0) < policy.hot_rate * (wanted // 2):
            wanted //= 2
    return min(wanted, policy.most)
