"""Who may open a connection to a tenant's own database: the book-keeping, without the opening and the closing.

One cap holds for the connections of all engines. Whose tenant has none comes before who wants one more; among equals
the first come. Where every connection is in use, the engine that has most gets no new leases until it can be closed, so
a tenant that is always busy cannot keep the others out.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

E = TypeVar("E")


@dataclass(slots=True, eq=False)
class OpenEngine(Generic[E]):
    """An engine in the cache."""

    url: str
    engine: E
    leases: int = 0
    connections: int = 0  # what the engine's pool may hold open: the most leases it had at one time
    last_used: float = 0.0
    draining: bool = False


@dataclass(slots=True, eq=False)
class Claim(Generic[E]):
    """Somebody who wants a lease; ``entry`` is set, and ``granted`` called, when there is one."""

    url: str
    granted: Callable[[], None]
    entry: OpenEngine[E] | None = None


class Capacity(Generic[E]):
    """Least recently used engines first out; an engine that is leased is never handed out to be closed.

    The owner calls :meth:`settle` after every change, closes what it returns and then says so by :meth:`closed`.
    """

    def __init__(
        self,
        create: Callable[[str], E],
        *,
        engines: int,
        connections: int,
        pool_size: int,
        idle: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._create = create
        self._max_engines = engines
        self._max_connections = connections
        self._pool_size = pool_size
        self._idle = idle
        self._monotonic = monotonic
        self._entries: OrderedDict[str, OpenEngine[E]] = OrderedDict()
        self._waiting: list[Claim[E]] = []
        self._closing = 0  # connections of engines that are being closed: they count until they are

    @property
    def open_engines(self) -> int:
        return len(self._entries)

    @property
    def connections(self) -> int:
        """How many connections may be open now, at most."""
        return self._closing + sum(entry.connections for entry in self._entries.values())

    def claim(self, url: str, granted: Callable[[], None]) -> Claim[E]:
        claim: Claim[E] = Claim(url, granted)
        self._waiting.append(claim)
        return claim

    def withdraw(self, claim: Claim[E]) -> None:
        """The claim is given up, whether or not it has been granted meanwhile."""
        if claim.entry is not None:
            self.release(claim.entry)
        else:
            self._waiting.remove(claim)

    def release(self, entry: OpenEngine[E]) -> None:
        entry.leases -= 1
        entry.last_used = self._monotonic()

    def closed(self, entry: OpenEngine[E]) -> None:
        self._closing -= entry.connections

    def settle(self) -> list[OpenEngine[E]]:
        """Grants what can be granted and returns the engines that are to be closed for the others."""
        closing: list[OpenEngine[E]] = []
        left = self._serve_newcomers(closing)
        for entry in self._entries.values():
            entry.draining &= left > 0
        for claim in self._waiting:
            if claim.entry is None and claim.url in self._entries:
                left += not self._serve(claim, left, closing)
        self._waiting = [claim for claim in self._waiting if claim.entry is None]
        return closing

    def take_idle(self) -> list[OpenEngine[E]]:
        """Removes and returns the engines that nobody has used for the idle time."""
        deadline = self._monotonic() - self._idle
        return [self._remove(e) for e in list(self._entries.values()) if e.leases == 0 and e.last_used <= deadline]

    def take_all(self) -> list[OpenEngine[E]]:
        """Removes and returns every engine. Leases must have ended."""
        return [self._remove(entry) for entry in list(self._entries.values())]

    def _serve_newcomers(self, closing: list[OpenEngine[E]]) -> int:
        """Serves the first claim of each tenant that has no engine, and returns how many of them must wait."""
        newcomers: dict[str, Claim[E]] = {}
        for claim in self._waiting:
            if claim.url not in self._entries:
                newcomers.setdefault(claim.url, claim)
        left = 0
        for claim in newcomers.values():
            left += not self._serve(claim, left, closing)
        coming = self._closing + sum(entry.connections for entry in self._entries.values() if entry.draining)
        while coming < left:
            candidates = [entry for entry in self._entries.values() if entry.leases > 0 and not entry.draining]
            if not candidates:
                break
            largest = max(candidates, key=lambda entry: entry.connections)
            largest.draining = True
            coming += largest.connections
        return left

    def _serve(self, claim: Claim[E], waiting: int, closing: list[OpenEngine[E]]) -> bool:
        """Grants the claim if that is possible with what ``waiting`` others do not have first call on."""
        entry = self._entries.get(claim.url)
        if entry is not None:
            if entry.draining:
                return False
            if entry.leases < entry.connections or entry.connections == self._pool_size:
                self._grant(claim, entry)
                return True
        while not self._has_room(entry):
            if self.connections >= self._max_connections and self._closing > waiting:
                return False  # enough is being closed already
            victim = next((e for e in self._entries.values() if e.leases == 0 and e is not entry), None)
            if victim is None:
                return False
            closing.append(self._remove(victim))
        if entry is None:
            entry = self._entries[claim.url] = OpenEngine(claim.url, self._create(claim.url))
        self._grant(claim, entry)
        return True

    def _has_room(self, entry: OpenEngine[E] | None) -> bool:
        return len(self._entries) + (entry is None) <= self._max_engines and self.connections < self._max_connections

    def _grant(self, claim: Claim[E], entry: OpenEngine[E]) -> None:
        entry.leases += 1
        entry.connections = min(max(entry.connections, entry.leases), self._pool_size)
        self._entries.move_to_end(entry.url)
        claim.entry = entry
        claim.granted()

    def _remove(self, entry: OpenEngine[E]) -> OpenEngine[E]:
        # Out of the cache before it is closed: who comes meanwhile makes a new engine.
        del self._entries[entry.url]
        self._closing += entry.connections
        return entry
