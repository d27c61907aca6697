"""What keeps one tenant from taking all the connections of a store that it shares with others."""

from typing import Protocol

from tenantry._tenant import Tenant


class Place(Protocol):
    def release(self) -> None:
        """Gives the place to whoever is next."""
        ...


class Bulkhead(Protocol):
    """Who of the tenants that share a pool gets the next of its connections: `tenantry.limits.ConnectionShares`."""

    async def enter(self, pool: str, size: int | None, tenant: Tenant) -> Place:
        """Waits for one of the `size` places of `pool`; without a size only the tenant's own cap counts.

        Raises `RateLimited` or `Unavailable` where none gets free.
        """
        ...
