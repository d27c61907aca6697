"""The one way into the database: a transaction that tells the other processes what it has published."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenant_service.publication import Change, ConfigChange, KeySetChanged, changes_of, key_of_config
from tenantry import Tenant, Tier
from tenantry.database import Databases

CHANGE_CHANNEL = "tenant_changed"
# A notification holds 8,000 bytes. A turn of sagas changes some hundred tenants; beyond some thousand keys it is
# cheaper to read everything again.
KEYS_AT_ONCE = 100
MAX_KEYS = 5_000
EVERYTHING = "*"

_NOTIFY = text("SELECT pg_notify(:channel, keys) FROM unnest(CAST(:notifications AS text[])) AS keys").bindparams(
    channel=CHANGE_CHANNEL
)


class Transactions:
    """Opens transactions of the system role.

    `committed` hears what a transaction has published once it is durable, so that a process can serve what it has
    itself written without waiting for the notification.
    """

    def __init__(
        self, databases: Databases, committed: Callable[[Sequence[Change]], None] = lambda _changes: None
    ) -> None:
        self._databases = databases
        self._committed = committed

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """A session with one transaction: committed when the block ends, rolled back when it raises."""
        async with self._databases.system_session() as session:
            yield session
            changes = await _notify(session)
            if changes:
                # Here and not by leaving the block, so that it is heard before this process's own notification is.
                await session.commit()
                self._committed(changes)


@asynccontextmanager
async def joined(connection: AsyncConnection) -> AsyncIterator[AsyncSession]:
    """A session inside a transaction that somebody else has begun and will commit, such as a consumer's batch."""
    async with AsyncSession(connection, expire_on_commit=False, join_transaction_mode="rollback_only") as session:
        yield session
        await session.flush()
        await _notify(session)


async def _notify(session: AsyncSession) -> Sequence[Change]:
    changes = changes_of(session)
    if changes:
        await session.execute(_NOTIFY, {"notifications": notifications(changes)})
    return changes


def notifications(changes: Sequence[Change]) -> list[str]:
    """What the other processes are told of these changes: lists of keys, each short enough for a notification."""
    keys = sorted({key_of(change) for change in changes})
    if len(keys) > MAX_KEYS:
        keys = [EVERYTHING]
    return [json.dumps(keys[first : first + KEYS_AT_ONCE]) for first in range(0, len(keys), KEYS_AT_ONCE)]


def key_of(change: Change) -> str:
    """What a notification says of a change: the kind and the id of what is to be read again.

    A tenant's version stands behind, so that who knows it already, as the process that has written it, reads nothing.
    """
    if isinstance(change, Tenant):
        return f"tenant:{change.id}:{change.version}"
    if isinstance(change, Tier):
        return f"tier:{change.name}"
    if isinstance(change, KeySetChanged):
        return "keys:"
    if isinstance(change, ConfigChange):
        return f"config:{key_of_config(change)}"
    return f"credential:{change.id}"
