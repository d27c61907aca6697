"""How far what follows the events is behind them, as metrics: for whoever is to be alerted before a tenant notices."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final, NoReturn

from prometheus_client import Gauge
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

# With a label: a gauge without one is 0 in every process that imports this, and that nobody looks would not be seen.
WATERMARK: Final = Gauge(
    "usage_watermark_age_seconds",
    "How long ago everything had been received that is counted in every partition",
    ["service"],
)
ROLLUPS: Final = Gauge(
    "usage_rollups_behind_seconds", "How long the oldest changed rollup has waited to be published", ["service"]
)
BALANCES: Final = Gauge(
    "usage_balances_behind", "Balances that may have changed and are not worked out yet", ["service"]
)

_SERVICE: Final = "usage"
_PAUSE_SECONDS: Final = 15.0
# The ids of changes begin with their milliseconds (UUIDv7).
_LAGS: Final = text(
    """
    SELECT (SELECT min(received_until) FROM system.partition_progress) AS received_until,
           (SELECT id FROM system.rollup_change ORDER BY id LIMIT 1) AS oldest,
           (SELECT count(*) FROM system.balance_change) AS balances
    """
)


async def watch_lags(engine: AsyncEngine) -> NoReturn:
    """Keeps the gauges until cancelled. Raises what the database raises; what nobody knows then, no gauge says."""
    try:
        while True:
            await observe_lags(engine, datetime.now(UTC))
            await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        for gauge in (WATERMARK, ROLLUPS, BALANCES):
            gauge.clear()


async def observe_lags(engine: AsyncEngine, now: datetime) -> None:
    """Sets the gauges to what is stored."""
    async with engine.connect() as connection:
        row = (await connection.execute(_LAGS)).one()
    WATERMARK.labels(_SERVICE).set(
        0 if row.received_until is None else max(0.0, (now - row.received_until).total_seconds())
    )
    ROLLUPS.labels(_SERVICE).set(0 if row.oldest is None else max(0.0, now.timestamp() - (row.oldest.int >> 80) / 1000))
    BALANCES.labels(_SERVICE).set(row.balances)
