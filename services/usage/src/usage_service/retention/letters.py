"""Dead letters whose time is over."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_DELETE = text(
    """
    DELETE FROM pool.dead_letter WHERE (tenant_id, id) IN (
        SELECT tenant_id, id FROM pool.dead_letter WHERE created_at <= :until LIMIT :limit)
    """
)
_COUNT = text("SELECT count(*) FROM pool.dead_letter WHERE created_at <= :until")


async def delete_old_letters(connection: AsyncConnection, until: datetime, *, limit: int) -> int:
    """Deletes some that were written until then; how many. The caller commits."""
    return (await connection.execute(_DELETE, {"until": until, "limit": limit})).rowcount


async def count_old_letters(connection: AsyncConnection, until: datetime) -> int:
    """How many were written until then."""
    return int(await connection.scalar(_COUNT, {"until": until}) or 0)
