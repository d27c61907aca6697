"""What a cache stores its bytes in."""

from typing import NamedTuple, Protocol
from uuid import UUID


class Found(NamedTuple):
    """What a store knows under a key, and the epoch that was in force when it was asked."""

    epoch: str | None
    """None where the store does not answer: nothing can be stored either."""
    name: str = ""
    value: bytes | None = None
    lease: str | None = None
    """Where there is no value: the right to load it, for a while and for one; None where somebody else has it."""


class CacheStore(Protocol):
    """Values of tenants by epoch. No call is without a tenant; none raises where a server is away."""

    async def find(self, tenant_id: UUID, namespace: str, key: str, stamp: str, *, lease: bool) -> Found:
        """The value of the current epoch, or the lease to load it where `lease` asks for one.

        `stamp` is a part of the epoch that the caller knows better, such as the version of the tenant.
        """
        ...

    async def renew(self, found: Found) -> None:
        """Keeps a lease while the value is still being loaded."""
        ...

    async def store(self, tenant_id: UUID, namespace: str, found: Found, value: bytes, seconds: float) -> bool:
        """Stores what was loaded under the lease. Returns whether it did: not after a flush, nor without the lease."""
        ...

    async def abandon(self, tenant_id: UUID, found: Found) -> None:
        """Gives a lease back, so that the next may load."""
        ...

    async def discard(self, tenant_id: UUID, namespace: str, key: str, stamp: str) -> None:
        """Forgets one value, and lets nobody store it who has begun to load it before."""
        ...

    async def flush(self, tenant_id: UUID, namespace: str | None) -> None:
        """Begins a new epoch, of one namespace or of all of the tenant's: one write, whatever is stored."""
        ...

    async def keep(self) -> None:
        """Does what is left to do later, until it is cancelled."""
        ...
