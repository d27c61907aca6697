"""A Bloom filter that grows: what it does not hold is surely new."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rbloom import Bloom

_FALSE_POSITIVES = 0.005
_FIRST_CAPACITY = 16_384
_GROWTH = 4


class DayFilter:
    """The identities of one day. Grows by adding a larger filter when the last one is full."""

    def __init__(self, expected: int = 0) -> None:
        """`expected` is how many keys there may be; more are no fault, but take more time to look for."""
        self.capacity = self._last = max(_FIRST_CAPACITY, expected)
        self._filters = [Bloom(self._last, _FALSE_POSITIVES)]
        self._room = self._last
        self._empty = True

    @property
    def filters(self) -> list[Bloom]:
        """All filters that hold a key; a key that none of them holds is new."""
        return [] if self._empty else self._filters

    def __contains__(self, key: bytes) -> bool:
        return any(key in each for each in self._filters)

    def extend(self, keys: Collection[bytes]) -> None:
        self._make_room(len(keys))
        self._filters[-1].update(keys)

    def extend_counted(self, keys: Iterable[bytes], count: int) -> None:
        """As `extend`, of so many keys that are made as they are taken."""
        self._make_room(count)
        self._filters[-1].update(keys)

    def _make_room(self, keys: int) -> None:
        if self._room < keys:
            self._last = self._room = max(self._last * _GROWTH, 2 * keys)
            self.capacity += self._last
            self._filters.append(Bloom(self._last, _FALSE_POSITIVES))
        self._room -= keys
        self._empty = self._empty and not keys
