"""SQL of routing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from usage_service.metering.spreading import WHOLE
from usage_service.retention.days import STORED_DAYS

_HOLD = text("SELECT pg_try_advisory_xact_lock(:number)")
_LOCK_NUMBER = 0x7573_6765_726F_7574  # "usgerout"
_HORIZON = text("SELECT min(received_until) FROM system.partition_progress")
_RATES = text(
    """
    SELECT tenant_id, received_from, events FROM system.tenant_rate WHERE received_from >= :since
     ORDER BY tenant_id, received_from
    """
)
_LATELY = text(
    """
    SELECT tenant_id, sum(events)::bigint AS events FROM system.tenant_rate
     WHERE received_from >= :since AND received_from < :until GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT :limit
    """
)
_FORGET = text("DELETE FROM system.tenant_rate WHERE received_from < :before")
# Idle partitions are moved on with the watermark, so this is also reached where nothing comes.
_DRAINED = text(
    """
    SELECT tenant_id FROM system.spread_tenant
     WHERE mixed_since + CAST(:grace AS interval) < (SELECT min(received_until) FROM system.partition_progress)
     ORDER BY tenant_id
    """
)
# From the last day that there is backwards: one look into an index a day.
_SETTLE = text(
    f"""
    UPDATE system.spread_tenant SET
           buckets = :buckets,
           mixed_since = NULL,
           mixed_until = (SELECT stored.day FROM ({STORED_DAYS}) AS stored
                           WHERE EXISTS (SELECT FROM pool.usage_event AS event
                                          WHERE event.tenant_id = :tenant_id AND event.day = stored.day)
                           ORDER BY stored.day DESC LIMIT 1)
     WHERE tenant_id = :tenant_id AND mixed_since IS NOT NULL
    """  # noqa: S608 (a statement of our own)
)
# Whatever came under another key has left PostgreSQL, and its days take no events any more.
_GATHERED = f"""
    buckets = 1 AND mixed_since IS NULL
    AND (mixed_until IS NULL OR mixed_until < (SELECT min(stored.day) FROM ({STORED_DAYS}) AS stored))
"""  # noqa: S608 (a statement of our own)
_ANY_GATHERED = text(f"SELECT EXISTS (SELECT FROM system.spread_tenant WHERE {_GATHERED})")  # noqa: S608
_FORGET_GATHERED = text(f"DELETE FROM system.spread_tenant WHERE {_GATHERED}")  # noqa: S608
_LIST = text("SELECT tenant_id, buckets, mixed_since, mixed_until FROM system.spread_tenant ORDER BY tenant_id")


@dataclass(frozen=True, slots=True)
class SpreadRow:
    """What the workers know of a tenant whose events lie, or lay, under several keys."""

    tenant_id: UUID
    buckets: int
    mixed_since: datetime | None
    mixed_until: date | None


async def hold(connection: AsyncConnection) -> bool:
    """Whether this transaction is the one that decides."""
    return bool(await connection.scalar(_HOLD, {"number": _LOCK_NUMBER}))


async def counted_until(connection: AsyncConnection) -> datetime | None:
    """The receipt time up to which every partition is counted; None before the first event."""
    until: datetime | None = await connection.scalar(_HORIZON)
    return until


async def rates_since(connection: AsyncConnection, since: datetime) -> dict[UUID, list[tuple[datetime, int]]]:
    """Events by tenant and window, in order."""
    rates: dict[UUID, list[tuple[datetime, int]]] = {}
    for row in await connection.execute(_RATES, {"since": since}):
        rates.setdefault(row.tenant_id, []).append((row.received_from, row.events))
    return rates


async def loudest(connection: AsyncConnection, since: datetime, until: datetime, limit: int) -> dict[UUID, int]:
    """The tenants that sent the most between two instants, with their events; the first sent the most."""
    rows = await connection.execute(_LATELY, {"since": since, "until": until, "limit": limit})
    return {row.tenant_id: row.events for row in rows}


async def forget_rates(connection: AsyncConnection, before: datetime) -> None:
    await connection.execute(_FORGET, {"before": before})


async def drained_tenants(connection: AsyncConnection, grace: timedelta) -> Sequence[UUID]:
    """Mixed tenants of whom all is counted that came until `grace` after they became so."""
    return (await connection.scalars(_DRAINED, {"grace": grace})).all()


async def settle(engine: AsyncEngine, tenant_id: UUID, buckets: int) -> None:
    """Says that every record from now on has the key of so many buckets, once no batch is under way.

    Commits. It need not be true: a record with another key makes the tenant mixed again before it is counted.
    """
    async with engine.begin() as connection:
        for statement in WHOLE:
            await connection.exec_driver_sql(statement)
        await connection.execute(_SETTLE, {"tenant_id": tenant_id, "buckets": buckets})


async def forget_gathered(engine: AsyncEngine) -> None:
    """Takes away the rows that say nothing any more, once no batch is under way. Commits."""
    async with engine.begin() as connection:
        if await connection.scalar(_ANY_GATHERED):
            for statement in WHOLE:
                await connection.exec_driver_sql(statement)
            await connection.execute(_FORGET_GATHERED)


async def spread_tenants(connection: AsyncConnection) -> list[SpreadRow]:
    """All of them, by id."""
    return [SpreadRow(*row) for row in await connection.execute(_LIST)]
