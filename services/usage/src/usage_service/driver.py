"""asyncpg's own connection, for COPY, for cursors and for statements of many rows."""

from __future__ import annotations

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection


async def driver_of(connection: AsyncConnection) -> asyncpg.Connection:
    """What it executes is part of a transaction only once that has begun on the wire: with its first statement."""
    driver: asyncpg.Connection | None = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    return driver
