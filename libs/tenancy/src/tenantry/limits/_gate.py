"""Places that tenants share fairly and wait for, on one event loop."""

import asyncio
import math
import time
from typing import Final, Self
from uuid import UUID

from tenantry._errors import RateLimited, Unavailable
from tenantry.limits._fair_queue import FairQueue, Share

PACE_SECONDS: Final = 0.01
"""How often it is looked at whether tenants may have more in progress than so far."""
BUSY: Final = 0.8
"""The part of its core that the thread of the loop may use before they may not."""
ALONE_SECONDS: Final = 1.0
"""A tenant is alone when no other has had a place for so long; then nobody suffers from what it does."""


class TenantFull(RateLimited):
    """The tenant has as much in progress as it may; it hears so, whatever is free."""


class ProcessFull(Unavailable):
    """The process is full, and this tenant is among those that ask for the most, or has waited for too long."""


class Place:
    """One place of a gate, to be given back once; leaving the block does."""

    __slots__ = ("_gate", "_stream", "_tenant_id")

    def __init__(self, gate: "FairGate", tenant_id: UUID) -> None:
        self._gate: FairGate | None = gate
        self._tenant_id = tenant_id
        self._stream = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def turn_into_stream(self) -> None:
        """From here on it counts for the tenant alone: a stream waits more than it works."""
        if self._gate is not None and not self._stream:
            self._stream = True
            self._gate.turn_into_stream(self._tenant_id)

    def release(self) -> None:
        """Gives the place back. May be repeated."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.release(self._tenant_id, stream=self._stream)


class _Turn:
    """Somebody who waits."""

    __slots__ = ("granted", "tenant_id")

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class FairGate:
    """`capacity` places. Who finds none waits `wait` seconds at most; of those that wait, the most loud are shed.

    Where it is `paced`, what one tenant has in progress grows step by step, and beside others only while the thread of
    the loop has time: all that it runs takes turns, so twenty requests that one tenant sends at once would make
    everybody's take twenty times as long. What waits itself (for a database, a network) is begun within a few steps.
    """

    def __init__(
        self,
        capacity: int,
        *,
        max_waiting: int,
        wait: float,
        what: str = "requests",
        reserve: int | None = None,
        paced: bool = False,
    ) -> None:
        """`what` names the places to people, as in "requests"."""
        self._queue: FairQueue[_Turn] = FairQueue(capacity, max_waiting=max_waiting, reserve=reserve, paced=paced)
        self._wait = wait
        self._what = what
        self._paced = paced
        self._step: asyncio.TimerHandle | None = None
        self._since = self._used = 0.0
        self._latest: UUID | None = None
        self._mixed_at = -math.inf

    @property
    def held(self) -> int:
        return self._queue.held

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    def check(self, tenant_id: UUID, share: Share) -> None:
        """Raises `TenantFull` where a further request of the tenant would neither be served nor wait."""
        if self._queue.is_capped(tenant_id, share) and self._queue.waits(tenant_id) >= (share.cap or 0):
            raise self._tenant_full(share)

    async def enter(self, tenant_id: UUID, share: Share) -> Place:
        """A place for the tenant, at once or after others.

        Raises `TenantFull` (429) where the tenant's own cap is what it waited for, `ProcessFull` (503) else.
        """
        if self._paced and tenant_id != self._latest:
            self._latest, self._mixed_at = tenant_id, time.monotonic()
        if self._queue.take(tenant_id, share):
            return Place(self, tenant_id)
        self.check(tenant_id, share)
        turn = _Turn(tenant_id)
        self._shed(self._queue.enqueue(tenant_id, share, turn))
        self._keep_pace()
        try:
            async with asyncio.timeout(self._wait):
                await turn.granted
        except BaseException as error:
            granted = turn.granted
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                # Cancelled, or too late, at the very moment at which the place was granted: it goes to the next.
                self.release(tenant_id)
            else:
                self._queue.withdraw(tenant_id, turn)
                self._grant()
            if isinstance(error, TimeoutError):
                raise self._too_late(tenant_id, share) from None
            raise
        return Place(self, tenant_id)

    def turn_into_stream(self, tenant_id: UUID) -> None:
        self._queue.turn_into_stream(tenant_id)
        self._grant()

    def release(self, tenant_id: UUID, *, stream: bool = False) -> None:
        self._queue.release(tenant_id, stream=stream)
        self._grant()

    def _grant(self) -> None:
        while (turn := self._queue.grant()) is not None:
            if turn.granted.done():  # cancelled just now; its task has not run since
                self._queue.release(turn.tenant_id)
            else:
                turn.granted.set_result(None)

    def _keep_pace(self) -> None:
        if self._paced and self._step is None and self._queue.waiting:
            self._since, self._used = time.monotonic(), time.thread_time()
            self._step = asyncio.get_running_loop().call_later(PACE_SECONDS, self._set_pace)

    def _set_pace(self) -> None:
        self._step = None
        now = time.monotonic()
        is_busy = time.thread_time() - self._used > BUSY * (now - self._since)
        self._queue.set_pace(faster=not is_busy or now - self._mixed_at > ALONE_SECONDS)
        self._grant()
        self._keep_pace()

    def _shed(self, turn: _Turn | None) -> None:
        if turn is not None and not turn.granted.done():
            turn.granted.set_exception(ProcessFull(f"More {self._what} wait than can be served soon.", retry_after=1))

    def _too_late(self, tenant_id: UUID, share: Share) -> TenantFull | ProcessFull:
        if self._queue.is_capped(tenant_id, share):
            return self._tenant_full(share)
        return ProcessFull(f"There was no room for {self._what} of this tenant in time.", retry_after=1)

    def _tenant_full(self, share: Share) -> TenantFull:
        return TenantFull(f"The tenant has as many {self._what} in progress as it may: {share.cap}.", retry_after=1)
