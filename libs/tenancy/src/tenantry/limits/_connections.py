"""A bulkhead between tenants on the connections of a shared database, and their caps elsewhere."""

import sys
from collections.abc import Callable
from typing import Final

from tenantry._tenant import Tenant
from tenantry.limits._fair_queue import Share
from tenantry.limits._gate import FairGate, Place

# A session that waits costs memory and nothing else; requests are shed before sessions are.
_WAITING_PER_CONNECTION: Final = 32


class ConnectionShares:
    """Shares the connections of each pool between tenants: all but a reserve to one while nobody else asks.

    Two sessions of one task at the same time take two places: a tenant's `connections` must not be less than that.
    """

    def __init__(self, share_of: Callable[[Tenant], Share], *, wait: float = 10.0) -> None:
        """`wait` is how many seconds a session waits for its turn."""
        self._share_of = share_of
        self._wait = wait
        self._gates: dict[str, FairGate] = {}

    async def enter(self, pool: str, size: int | None, tenant: Tenant) -> Place:
        """A place of the `size` in `pool`, until it is released; of a pool without a size for as many as may have one.

        Raises `TenantFull` (429) or `ProcessFull` (503) where none became free in time.
        """
        gate = self._gates.get(pool)
        if gate is None:
            gate = self._gates[pool] = self._gate(size)
        return await gate.enter(tenant.id, self._share_of(tenant))

    def _gate(self, size: int | None) -> FairGate:
        places, reserve = (size, None) if size is not None else (sys.maxsize, 0)
        return FairGate(
            places,
            max_waiting=places * _WAITING_PER_CONNECTION,
            wait=self._wait,
            what="database sessions",
            reserve=reserve,
        )
