"""Who comes most often, in memory that does not grow with how many there are (Misra and Gries, 1982)."""

import heapq
from collections.abc import Collection
from typing import Final
from uuid import UUID

# A newcomer must have this many times what a named one has: two of about the same size do not take turns.
_CLEARLY_MORE: Final = 1.25


class HeavyHitters:
    """Counts that are never too high, and too low by at most a `capacity + 1`th of all that was added.

    So whoever has more than that share is always among those that are counted.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._counts: dict[UUID, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, tenant_id: UUID) -> None:
        """Counts one. Takes constant time on average: what a full table takes from all was put in before."""
        counts = self._counts
        if tenant_id in counts:
            counts[tenant_id] += 1
        elif len(counts) < self._capacity:
            counts[tenant_id] = 1
        else:
            self._counts = {known: count - 1 for known, count in counts.items() if count > 1}

    def age(self) -> None:
        """Halves every count, so that what was long ago weighs less, and forgets those that come to nothing."""
        self._counts = {known: count // 2 for known, count in self._counts.items() if count > 1}

    def top(self, size: int, incumbents: Collection[UUID] = ()) -> list[UUID]:
        """The `size` with the highest counts, the highest first; `incumbents` stay unless others clearly have more."""

        def weight(tenant_id: UUID) -> float:
            count = self._counts[tenant_id]
            return count * _CLEARLY_MORE if tenant_id in incumbents else count

        return heapq.nlargest(size, self._counts, key=weight)
