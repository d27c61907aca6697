"""The queue of balances that may have changed, and the turn in which those of a tenant are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

_QUEUE: Final = text("INSERT INTO system.balance_change (tenant_id, feature) VALUES (:tenant, :feature)")

# In the order that is given, so that two steps never wait for each other.
_LOCK: Final = text(
    """
    SELECT pg_advisory_xact_lock(hashtextextended('usage.balances', 0) # hashtextextended(tenant_id, 0))
      FROM unnest(CAST(:tenants AS text[])) AS tenant_id
    """
)


async def lock_balances(session: AsyncSession, tenants: Sequence[UUID]) -> None:
    """Has these tenants' balances and alerts be told by nobody else until the end of the transaction; in order."""
    await session.execute(_LOCK, {"tenants": [str(tenant_id) for tenant_id in tenants]})


async def queue_change(session: AsyncSession | AsyncConnection, tenant_id: UUID, feature: str) -> None:
    """Has the balance worked out anew once the caller's transaction is committed."""
    await session.execute(_QUEUE, {"tenant": tenant_id, "feature": feature})
