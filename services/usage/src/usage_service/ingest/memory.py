"""How much memory requests may take together, and one caller beside others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Self

from prometheus_client import Counter, Gauge

from tenantry import RateLimited, Unavailable

HELD = Gauge("usage_ingest_held_bytes", "What requests of POST /v1/events hold, as it is counted against their bound")
TURNED_AWAY = Counter("usage_ingest_turned_away_total", "Requests that found no memory", ["reason"])
for _reason in ("process", "caller"):
    TURNED_AWAY.labels(_reason)

_COPIES: Final = 3
"""A body as it comes in, the same in one piece, and the records that it becomes."""
_SMALLEST: Final = 8 << 10
"""A request takes this much however short it is: its task, its head, its objects."""
_APPETITE: Final = 2
_RETRY_AFTER: Final = 1


def bytes_held(body: int) -> int:
    """What a request with a body of so many bytes is counted with."""
    return _SMALLEST + _COPIES * body


class Holding:
    """What one request holds, until `release`; a context manager that releases."""

    __slots__ = ("_caller", "_memory", "size")

    def __init__(self, memory: IngestMemory, caller: str) -> None:
        self._memory = memory
        self._caller = caller
        self.size = 0

    def hold(self, body: int) -> None:
        """Holds what a body of so many bytes takes, where that is more than so far. Raises as `IngestMemory.hold`."""
        more = bytes_held(body) - self.size
        if more > 0:
            self._memory.take(self._caller, more)
            self.size += more

    def release(self) -> None:
        """May be repeated."""
        size, self.size = self.size, 0
        self._memory.give_back(self._caller, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class IngestMemory:
    """Bytes that requests hold, with those that Kafka has not acknowledged yet, never more than `capacity`.

    Nobody waits for memory. A caller may hold twice what is free: alone two thirds of all, and the less the more others
    hold, so that something is always left for who holds nothing (dynamic thresholds; Choudhury and Hahne, 1998).
    """

    def __init__(self, capacity: int, unacknowledged: Callable[[], int]) -> None:
        self._capacity = capacity
        self._unacknowledged = unacknowledged
        self._held = 0
        self._by_caller: dict[str, int] = {}
        HELD.set_function(lambda: self._held)

    @property
    def held(self) -> int:
        return self._held

    def hold(self, caller: str, body: int) -> Holding:
        """Holds what a body of so many bytes takes, before it is read.

        Raises RateLimited (429) where the caller itself holds too much, Unavailable (503) where all do.
        """
        holding = Holding(self, caller)
        holding.hold(body)
        return holding

    def take(self, caller: str, size: int) -> None:
        """Raises as `hold`, and has taken nothing then."""
        free = self._capacity - self._held - self._unacknowledged()
        own = self._by_caller.get(caller, 0)
        if size > free:
            TURNED_AWAY.labels("process").inc()
            raise Unavailable("Too many events are on their way; nothing was accepted.", retry_after=_RETRY_AFTER)
        if own and own + size > _APPETITE * free:
            TURNED_AWAY.labels("caller").inc()
            raise RateLimited("Too many events of this caller are on their way.", retry_after=_RETRY_AFTER)
        self._by_caller[caller] = own + size
        self._held += size

    def give_back(self, caller: str, size: int) -> None:
        self._held -= size
        left = self._by_caller.get(caller, 0) - size
        if left > 0:
            self._by_caller[caller] = left
        else:
            self._by_caller.pop(caller, None)
