"""What tenants send, by the time of receipt: sampled by the workers, so that a backlog does not hide it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Final, NoReturn
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from usage_service.domain.instants import instant
from usage_service.metering.rows import EventRow

WINDOW_SECONDS: Final = 10
_WINDOW: Final = WINDOW_SECONDS * 1_000_000
_EVERY: Final = 16
"""One row of so many stands for all of them."""
_FLUSH_SECONDS: Final = 5.0
_MOST: Final = 200
"""Tenants and windows that a process writes at a time: those with the most events."""

log = structlog.get_logger(__name__)

_ADD = text(
    """
    INSERT INTO system.tenant_rate AS rate (tenant_id, received_from, events)
    SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:windows AS timestamptz[]), CAST(:events AS bigint[]))
     ORDER BY 1, 2
    ON CONFLICT (tenant_id, received_from) DO UPDATE SET events = rate.events + excluded.events
    """
)


class TenantRates:
    """Counts of the members of one process. What a killed process has not written is lost: they are estimates."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[bytes, int]] = Counter()

    def sample(self, rows: Sequence[EventRow]) -> None:
        """Takes in a batch: a few microseconds for every thousand rows."""
        # Where it begins is drawn, or the last rows of small batches would never be seen.
        for row in rows[random.randrange(_EVERY) :: _EVERY]:  # noqa: S311 (a sample, no secret)
            self._counts[row.tenant, row.received // _WINDOW] += _EVERY

    async def flush(self, engine: AsyncEngine) -> None:
        """Writes what was counted since the last time."""
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        greatest = counts.most_common(_MOST)
        async with engine.begin() as connection:
            await connection.execute(
                _ADD,
                {
                    "tenants": [UUID(bytes=tenant) for (tenant, _), _ in greatest],
                    "windows": [instant(window * _WINDOW) for (_, window), _ in greatest],
                    "events": [events for _, events in greatest],
                },
            )

    async def keep_writing(self, engine: AsyncEngine) -> NoReturn:
        """Every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                await self.flush(engine)
            except (SQLAlchemyError, OSError) as error:
                log.warning("tenant_rates_not_written", error=type(error).__name__)
