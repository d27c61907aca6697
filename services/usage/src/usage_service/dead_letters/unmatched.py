"""How many events no meter has known, for whoever is to be alerted: they are accepted, and counted for nobody."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn

import structlog
from prometheus_client import Gauge
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

UNMATCHED: Final = Gauge(
    "usage_unmatched_events", "Events whose type no meter knew when they came, of all tenants, as the database has them"
)

_PAUSE_SECONDS: Final = 30.0
_SUM: Final = text("SELECT COALESCE(sum(count), 0)::bigint FROM pool.unmatched_type")

log = structlog.get_logger(__name__)


async def watch_unmatched(engine: AsyncEngine) -> NoReturn:
    """Keeps the gauge, and warns of each growth, until cancelled. Raises what the database raises."""
    known = await observe_unmatched(engine)
    while True:
        await asyncio.sleep(_PAUSE_SECONDS)
        now = await observe_unmatched(engine)
        if now > known:
            log.warning("usage_unmatched_events", count=now - known)
        known = now


async def observe_unmatched(engine: AsyncEngine) -> int:
    """Sets the gauge to what is stored, and returns it."""
    async with engine.connect() as connection:
        count: int = (await connection.execute(_SUM)).scalar_one()
    UNMATCHED.set(count)
    return count
