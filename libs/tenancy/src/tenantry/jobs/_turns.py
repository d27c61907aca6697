"""Whose job is next: the fair queue of requests, with tenants in the place of requests."""

from typing import NamedTuple
from uuid import UUID

from tenantry.jobs._queue import Queue
from tenantry.limits import FairQueue, Share


class Turn(NamedTuple):
    """A tenant that has jobs waiting, and where."""

    tenant_id: UUID
    queue: Queue


class Turns:
    """`capacity` jobs at a time, shared between the tenants that have jobs; each of them stands in line once.

    A tenant that gets a place takes one job with it and joins the line again, so a thousand jobs of one tenant stand
    behind one job of each other.
    """

    def __init__(self, capacity: int, *, reserve: int) -> None:
        # Nobody is shed: those that stand in line are tenants, and jobs wait in the database.
        self._line: FairQueue[Turn] = FairQueue(capacity, max_waiting=2**63, reserve=reserve)
        self._standing: set[Turn] = set()

    @property
    def running(self) -> int:
        return self._line.held

    def holds(self, tenant_id: UUID) -> int:
        """The tenant's jobs that run now."""
        return self._line.holds(tenant_id)

    def join(self, turn: Turn, share: Share) -> None:
        """Has a tenant stand in line, where it does not already; `share` holds from now on."""
        if turn not in self._standing:
            self._standing.add(turn)
            self._line.enqueue(turn.tenant_id, share, turn)

    def next(self) -> Turn | None:
        """The tenant that gets a place now; None where all are taken, or none who waits may have one."""
        turn = self._line.grant()
        if turn is not None:
            self._standing.discard(turn)
        return turn

    def end(self, turn: Turn) -> None:
        """Gives the place back."""
        self._line.release(turn.tenant_id)
