"""The queue of balances that may have changed."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

_QUEUE: Final = text("INSERT INTO system.balance_change (tenant_id, feature) VALUES (:tenant, :feature)")


async def queue_change(session: AsyncSession | AsyncConnection, tenant_id: UUID, feature: str) -> None:
    """Has the balance worked out anew once the caller's transaction is committed."""
    await session.execute(_QUEUE, {"tenant": tenant_id, "feature": feature})
