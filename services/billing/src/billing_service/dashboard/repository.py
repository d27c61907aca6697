"""What the console starts from: one consistent snapshot of billing's own tables, with the offsets it stands at."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from billing_service.dashboard.board import MeterTotal, RowKey, RowState, Window

_SNAPSHOT: Final = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
_OFFSETS: Final = text(
    "SELECT partition, next_offset FROM system.consumer_offset WHERE group_id = :group AND topic = :topic"
)
_WINDOWS: Final = (
    "unnest(CAST(:tenant_ids AS uuid[]), CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]))"
    " AS shown (tenant_id, period_from, period_to)"
)
_TOTALS: Final = text(
    f"""
    SELECT r.tenant_id, shown.period_from, shown.period_to, r.meter, sum(r.count) AS events, sum(r.sum) AS total
      FROM {_WINDOWS}
      JOIN usage_rollup AS r ON r.tenant_id = shown.tenant_id
       AND r.window_start >= shown.period_from AND r.window_start < shown.period_to
     GROUP BY r.tenant_id, shown.period_from, shown.period_to, r.meter
    """  # noqa: S608 - constant parts
)
_ROWS: Final = text(
    f"""
    SELECT r.tenant_id, r.meter, r.window_start, r.meter_version, r.group_hash, r.version, r.count AS events, r.sum
      FROM {_WINDOWS}
      JOIN usage_rollup AS r ON r.tenant_id = shown.tenant_id
       AND r.window_start >= shown.period_from AND r.window_start < shown.period_to
     ORDER BY r.window_start DESC LIMIT :limit
    """  # noqa: S608 - constant parts
)
_INVOICED: Final = text(
    "SELECT currency, count(*) AS invoices, sum(total) AS total FROM invoice_final GROUP BY currency"
)
_LATEST: Final = text(
    """
    SELECT id, number, tenant_id, currency, total, period_from, period_to, issued_at
      FROM invoice_final ORDER BY id DESC LIMIT :limit
    """
)


@dataclass(frozen=True, slots=True)
class ShownInvoice:
    id: UUID
    number: str
    tenant_id: UUID
    currency: str
    total: Decimal
    period_from: datetime
    period_to: datetime
    issued_at: datetime


async def begin_snapshot(connection: AsyncConnection) -> None:
    """Make everything that this transaction reads one instant. Must be its first statement."""
    await connection.execute(_SNAPSHOT)


async def stored_offsets(connection: AsyncConnection, group: str, topic: str) -> dict[int, int]:
    rows = await connection.execute(_OFFSETS, {"group": group, "topic": topic})
    return {row.partition: row.next_offset for row in rows}


async def totals(
    connection: AsyncConnection, windows: Sequence[tuple[UUID, datetime, datetime]]
) -> dict[tuple[UUID, Window], dict[str, MeterTotal]]:
    """By tenant and window, and by meter, what was counted."""
    found: dict[tuple[UUID, Window], dict[str, MeterTotal]] = {}
    for row in await connection.execute(_TOTALS, _parameters(windows)):
        key = (row.tenant_id, (row.period_from, row.period_to))
        found.setdefault(key, {})[row.meter] = MeterTotal(row.events, row.total)
    return found


async def rows(
    connection: AsyncConnection, windows: Sequence[tuple[UUID, datetime, datetime]], limit: int
) -> list[tuple[RowKey, RowState]]:
    """The single rollups behind the totals, the latest hours first, at most `limit`."""
    found = await connection.execute(_ROWS, _parameters(windows) | {"limit": limit})
    return [
        (
            (row.tenant_id, row.meter, row.window_start, row.meter_version, row.group_hash),
            RowState(row.version, row.events, row.sum),
        )
        for row in found
    ]


async def invoiced(connection: AsyncConnection) -> dict[str, tuple[int, Decimal]]:
    """By currency, how many invoices are final and their sum."""
    return {row.currency: (row.invoices, row.total) for row in await connection.execute(_INVOICED)}


async def latest_invoices(connection: AsyncConnection, limit: int) -> list[ShownInvoice]:
    return [ShownInvoice(**row._asdict()) for row in await connection.execute(_LATEST, {"limit": limit})]


def _parameters(windows: Sequence[tuple[UUID, datetime, datetime]]) -> dict[str, object]:
    return {
        "tenant_ids": [window[0] for window in windows],
        "starts": [window[1] for window in windows],
        "ends": [window[2] for window in windows],
    }
