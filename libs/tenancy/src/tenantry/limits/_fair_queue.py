"""Who is next when a process is full: pure, without time and tasks.

Places are shared max-min fairly: of the tenants that wait, the one that holds the least for its weight gets the next
place, so a tenant that holds none goes before everybody who holds some. Among equals, start-time fair queueing decides
(Goyal, Vin, Cheng: Start-time Fair Queueing, 1996): a tenant that comes back has not lost its turn, nor saved any.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, NamedTuple, TypeVar
from uuid import UUID

Item = TypeVar("Item", bound=Hashable)

_MIN_PRUNE: Final = 1_024


class Share(NamedTuple):
    """What a tenant may take: `cap` is how many places at most, None for as many as there are."""

    weight: float = 1.0
    cap: int | None = None


class _Line:
    """One tenant: what it holds and who waits for it."""

    __slots__ = ("finish", "held", "pace", "share", "start", "streams", "waiting")

    def __init__(self) -> None:
        self.share = Share()
        self.held = 0
        self.pace = 1  # how many places it may hold by now, for its weight
        self.streams = 0  # taken from its cap and no longer from the places of all
        self.start = 0.0
        self.finish = 0.0
        self.waiting: OrderedDict[object, None] = OrderedDict()


class FairQueue(Generic[Item]):
    """`capacity` places for tenants. The last `reserve` of them go only to tenants that hold none.

    The reserve is what a quiet tenant is served from at once while loud ones hold all the rest; by default an eighth.
    Where the queue is `paced`, a tenant begins with one place (its weight, if that is more) and gets further ones as
    `set_pace` says.
    """

    def __init__(self, capacity: int, *, max_waiting: int, reserve: int | None = None, paced: bool = False) -> None:
        self._capacity = capacity
        self._paced = paced
        self._reserve = capacity // 8 if reserve is None else reserve
        self._max_waiting = max_waiting
        self._lines: dict[UUID, _Line] = {}
        # Whose turn lies ahead although they hold nothing and wait for nothing: else they would come back first.
        self._finished: dict[UUID, float] = {}
        self._prune_at = _MIN_PRUNE
        self._virtual = self._last_finish = 0.0
        self.held = 0
        self.waiting = 0

    def __len__(self) -> int:
        """How many tenants are remembered."""
        return len(self._lines) + len(self._finished)

    def holds(self, tenant_id: UUID) -> int:
        line = self._lines.get(tenant_id)
        return 0 if line is None else line.held + line.streams

    def waits(self, tenant_id: UUID) -> int:
        line = self._lines.get(tenant_id)
        return 0 if line is None else len(line.waiting)

    def is_capped(self, tenant_id: UUID, share: Share) -> bool:
        """Whether the tenant holds as much as it may, whatever is free."""
        return share.cap is not None and self.holds(tenant_id) >= share.cap

    def take(self, tenant_id: UUID, share: Share) -> bool:
        """Takes a place at once, where one is free for this tenant and none of its own waits already."""
        line = self._line(tenant_id, share)
        if line.waiting or not self._has_place(line):
            self._forget(tenant_id, line)
            return False
        line.start = max(self._virtual, line.finish)
        self._hold(line)
        return True

    def enqueue(self, tenant_id: UUID, share: Share, item: Item) -> Item | None:
        """Has `item` wait for a place. Returns who is turned away where too many wait: the newest of the loudest.

        That may be `item` itself.
        """
        line = self._line(tenant_id, share)
        if not line.waiting:
            line.start = max(self._virtual, line.finish)
        line.waiting[item] = None
        self.waiting += 1
        if self.waiting <= self._max_waiting:
            return None
        loudest = max(self._lines, key=lambda known: self._loudness(self._lines[known]))
        loud = self._lines[loudest]
        shed, _ = loud.waiting.popitem()
        self.waiting -= 1
        self._forget(loudest, loud)
        return shed  # type: ignore[return-value] # what was put in

    def withdraw(self, tenant_id: UUID, item: Item) -> None:
        """Stops waiting. Nothing happens where `item` waits no more."""
        line = self._lines.get(tenant_id)
        if line is not None and item in line.waiting:
            del line.waiting[item]
            self.waiting -= 1
            self._forget(tenant_id, line)

    def release(self, tenant_id: UUID, *, stream: bool = False) -> None:
        """Gives a place back; `stream` says that it was turned into a stream before."""
        line = self._lines[tenant_id]
        if stream:
            line.streams -= 1
        else:
            line.held -= 1
            self.held -= 1
        self._forget(tenant_id, line)

    def turn_into_stream(self, tenant_id: UUID) -> None:
        """Gives a place back to the others, while it goes on to count against the tenant's cap."""
        line = self._lines[tenant_id]
        line.held -= 1
        line.streams += 1
        self.held -= 1

    def set_pace(self, *, faster: bool) -> None:
        """Lets whoever waits hold twice as many places as so far, or half as many; never less than one for its weight.

        What is held already is not taken away.
        """
        for line in self._lines.values():
            if line.waiting:
                line.pace = min(line.pace * 2, self._capacity) if faster else max(line.pace // 2, 1)

    def grant(self) -> Item | None:
        """Gives a free place to whoever is next, and returns it; None where nobody who waits may have one."""
        chosen: _Line | None = None
        best = (0.0, 0.0)
        if not self.waiting or self.held >= self._capacity:
            return None
        for line in self._lines.values():
            if line.waiting and self._has_place(line):
                rank = (line.held / line.share.weight, line.start)
                if chosen is None or rank < best:
                    chosen, best = line, rank
        if chosen is None:
            return None
        item, _ = chosen.waiting.popitem(last=False)
        self.waiting -= 1
        self._hold(chosen)
        chosen.start = max(chosen.finish, self._virtual)  # no credit for the time in which it held its share
        return item  # type: ignore[return-value] # what was put in

    def _has_place(self, line: _Line) -> bool:
        if line.share.cap is not None and line.held + line.streams >= line.share.cap:
            return False
        if self._paced and line.held and line.held >= line.pace * max(line.share.weight, 1.0):
            return False
        return self.held < self._capacity - (self._reserve if line.held else 0)

    def _hold(self, line: _Line) -> None:
        self._virtual = max(self._virtual, line.start)
        line.finish = line.start + 1 / line.share.weight
        self._last_finish = max(self._last_finish, line.finish)
        line.held += 1
        self.held += 1

    def _line(self, tenant_id: UUID, share: Share) -> _Line:
        line = self._lines.get(tenant_id)
        if line is None:
            line = self._lines[tenant_id] = _Line()
            line.finish = self._finished.pop(tenant_id, 0.0)
        line.share = share
        return line

    def _loudness(self, line: _Line) -> float:
        return len(line.waiting) / line.share.weight

    def _forget(self, tenant_id: UUID, line: _Line) -> None:
        """Drops a tenant that neither holds nor waits; its turn is remembered as long as there is a queue to go by."""
        if line.held or line.streams or line.waiting:
            return
        del self._lines[tenant_id]
        if not self.held and not self.waiting:
            self._virtual = self._last_finish
            self._finished.clear()
        elif line.finish > self._virtual:
            self._finished[tenant_id] = line.finish
            if len(self._finished) >= self._prune_at:
                self._finished = {known: turn for known, turn in self._finished.items() if turn > self._virtual}
                self._prune_at = max(_MIN_PRUNE, 2 * len(self._finished))
