"""What a service keeps of tenants outside PostgreSQL, such as an archive in a blob store."""

from collections.abc import AsyncIterator
from typing import Protocol
from uuid import UUID


class Holding(Protocol):
    """Takes part in exports and purges as a table does that is emptied last. Every call may be repeated."""

    @property
    def label(self) -> str:
        """As people read it in a certificate, and as progress remembers it: never that of a table."""
        ...

    async def count(self, tenant_id: UUID) -> int:
        """How many rows of the tenant there are.

        What the service was writing when the tenant's last row left PostgreSQL is in it: a purge believes a zero.
        """
        ...

    async def erase(self, tenant_id: UUID) -> bool:
        """Erase a batch; whether there may be more. After False nothing of the tenant is left."""
        ...

    def lines(self, tenant_id: UUID) -> AsyncIterator[bytes]:
        """The rows that are not in a table as well, as lines of JSON, each with its end."""
        ...
