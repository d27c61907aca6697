"""All SQL of `bill_from`. Nothing here commits."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

_FIND: Final = text(
    """
    SELECT tenant_id, bill_from FROM standing
     WHERE tenant_id = ANY(CAST(:tenant_ids AS uuid[])) AND bill_from IS NOT NULL
    """
)
# Whoever writes drafts of a tenant holds its row shared until they are committed.
_HOLD: Final = text(
    """
    SELECT tenant_id, bill_from FROM standing
     WHERE tenant_id = ANY(CAST(:tenant_ids AS uuid[])) ORDER BY tenant_id FOR SHARE
    """
)
_SET: Final = text(
    """
    INSERT INTO standing AS stored (tenant_id, version, bill_from) VALUES (:tenant_id, 0, :bill_from)
        ON CONFLICT (tenant_id) DO UPDATE SET bill_from = EXCLUDED.bill_from
    """
)
_LOCK: Final = text("SELECT bill_from FROM standing WHERE tenant_id = :tenant_id FOR UPDATE")
_BILLED_WITHIN: Final = text(
    """
    SELECT EXISTS (SELECT FROM billed_period
                    WHERE tenant_id = :tenant_id AND kind = 'period' AND period_from < :until
                      AND (CAST(:since AS timestamptz) IS NULL OR period_to > :since))
    """
)
# A subscription bills the whole local days from its start to its end.
_UNBILLED: Final = text(
    """
    SELECT rollup.tenant_id, standing.bill_from, min(window_start) AS first, max(window_start) AS last,
           sum(rollup.count) AS events, array_agg(DISTINCT rollup.meter ORDER BY rollup.meter) AS meters
      FROM usage_rollup AS rollup
      LEFT JOIN standing USING (tenant_id)
     WHERE rollup.tenant_id > :after AND rollup.count > 0
       AND (standing.bill_from IS NULL OR rollup.window_start >= standing.bill_from)
       AND NOT EXISTS (
           SELECT FROM subscription AS billed
            WHERE billed.tenant_id = rollup.tenant_id
              AND rollup.window_start >= date_trunc('day', billed.start_at, billed.time_zone)
              AND (billed.ends_at IS NULL OR rollup.window_start < billed.ends_at
                   OR rollup.window_start < (date_trunc('day', billed.ends_at AT TIME ZONE billed.time_zone
                                                 - interval '1 microsecond') + interval '1 day')
                                            AT TIME ZONE billed.time_zone))
     GROUP BY rollup.tenant_id, standing.bill_from
     ORDER BY rollup.tenant_id LIMIT :limit
    """
)


async def bill_froms(session: AsyncSession, tenant_ids: Iterable[UUID]) -> dict[UUID, datetime]:
    """Of those of the tenants that have one stated."""
    rows = await session.execute(_FIND, {"tenant_ids": list(set(tenant_ids))})
    return {row.tenant_id: row.bill_from for row in rows}


async def hold_bill_froms(session: AsyncSession, tenant_ids: Iterable[UUID]) -> dict[UUID, datetime]:
    """As `bill_froms`, and none of the tenants' changes until the caller commits."""
    rows = await session.execute(_HOLD, {"tenant_ids": list(set(tenant_ids))})
    return {row.tenant_id: row.bill_from for row in rows if row.bill_from is not None}


async def lock(session: AsyncSession, tenant_id: UUID) -> datetime | None:
    """What is stated for the tenant, locked against those who bill it."""
    stated: datetime | None = await session.scalar(_LOCK, {"tenant_id": tenant_id})
    return stated


async def put(session: AsyncSession, tenant_id: UUID, bill_from: datetime | None) -> None:
    await session.execute(_SET, {"tenant_id": tenant_id, "bill_from": bill_from})


async def is_billed_within(session: AsyncSession, tenant_id: UUID, since: datetime | None, until: datetime) -> bool:
    """Whether a billed or skipped period has a part in [since, until); all of the past without `since`."""
    return bool(await session.scalar(_BILLED_WITHIN, {"tenant_id": tenant_id, "since": since, "until": until}))


async def unbilled(session: AsyncSession, after: UUID, limit: int) -> Sequence[Row[Any]]:
    """Tenants with usage, none of it before their `bill_from`, that no subscription covers."""
    return (await session.execute(_UNBILLED, {"after": after, "limit": limit})).all()
