"""Which identities are surely new: Bloom filters of what a partition has stored, by day.

A copy of an event can lie on a neighbouring day, and looking there for every event costs more than storing it. Only the
owner of a partition writes identities that came through it, so the owner can remember them: what the filters of the
days around an event do not hold is new. What they hold may be a copy, and is looked up. There are no false negatives:

- filters are loaded from the database inside a transaction of the owner, after the claim of the partition, which waits
  for the last transaction of the owner before;
- a key is added before its transaction commits; a rollback leaves a key too many, which costs a lookup;
- a change of the owner epoch drops the partition's filters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from rbloom import Bloom

_FALSE_POSITIVES = 0.005
_FIRST_CAPACITY = 16_384
_GROWTH = 4
_REMEMBERED = 600  # filters of (partition, day); the least recently used is forgotten and loaded again when needed


class DayFilter:
    """Grows by adding a larger filter when the last one is full."""

    def __init__(self, keys: list[bytes]) -> None:
        self._capacity = max(_FIRST_CAPACITY, 2 * len(keys))
        self._filters = [Bloom(self._capacity, _FALSE_POSITIVES)]
        self._filters[0].update(keys)
        self._room = self._capacity - len(keys)
        self._empty = not keys

    @property
    def filters(self) -> list[Bloom]:
        """All filters that hold a key; a key that none of them holds is new."""
        return [] if self._empty else self._filters

    def extend(self, keys: list[bytes]) -> None:
        if self._room < len(keys):
            self._capacity = max(self._capacity * _GROWTH, 2 * len(keys))
            self._filters.append(Bloom(self._capacity, _FALSE_POSITIVES))
            self._room = self._capacity
        self._filters[-1].update(keys)
        self._room -= len(keys)
        self._empty = self._empty and not keys


class IdentityFilters:
    """The filters of the partitions that one consumer member owns."""

    def __init__(self) -> None:
        self._filters: OrderedDict[tuple[int, int], DayFilter] = OrderedDict()
        self._epochs: dict[int, int] = {}

    def own(self, partition: int, epoch: int) -> bool:
        """Tells under which epoch the partition is owned now; True when that is news and the filters were dropped."""
        if self._epochs.get(partition) == epoch:
            return False
        self._epochs[partition] = epoch
        for place in [place for place in self._filters if place[0] == partition]:
            del self._filters[place]
        return True

    def missing(self, places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """The (partition, day) without a filter; what is there counts as used."""
        absent = []
        for place in places:
            if place in self._filters:
                self._filters.move_to_end(place)
            else:
                absent.append(place)
        return absent

    def load(self, place: tuple[int, int], keys: list[bytes]) -> None:
        self._filters[place] = DayFilter(keys)

    def get(self, place: tuple[int, int]) -> DayFilter:
        return self._filters[place]

    def forget_unused(self) -> None:
        """Between batches, so that a batch keeps what it loaded."""
        while len(self._filters) > _REMEMBERED:
            self._filters.popitem(last=False)
