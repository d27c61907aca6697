"""Rows of corrections, for those who list them. The meter worker writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

_CLAUSES: Final = {
    "tenant": "tenant_id = :tenant",
    "state": "state = :state",
    "source": "source = :source",
    "event_id": "event_id = :event_id",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which corrections; what is None does not narrow."""

    tenant: UUID | None = None
    state: str | None = None
    source: str | None = None
    event_id: str | None = None


async def find_corrections(
    session: AsyncSession, asked: Filter, *, before: tuple[datetime, UUID], limit: int
) -> Sequence[Row[Any]]:
    """A page of corrections, those received last first."""
    values = {name: value for name in _CLAUSES if (value := getattr(asked, name)) is not None}
    where = " AND ".join(
        [*(_CLAUSES[name] for name in values), "(received_at, id) < (:before, CAST(:before_id AS uuid))"]
    )
    statement = text(
        f"""
        SELECT *
          FROM (SELECT tenant_id, id, source, event_id, COALESCE(day, asked_day) AS day, replacement_source,
                       replacement_id, reason, received_at, applied_at,
                       CASE WHEN day IS NOT NULL THEN 'applied' WHEN missing_at IS NOT NULL THEN 'missing'
                            ELSE 'waiting' END AS state
                  FROM pool.correction) AS correction
         WHERE {where} ORDER BY received_at DESC, id DESC LIMIT :limit
        """  # noqa: S608 (clauses of our own)
    )
    found = await session.execute(statement, {**values, "before": before[0], "before_id": before[1], "limit": limit})
    return found.all()
