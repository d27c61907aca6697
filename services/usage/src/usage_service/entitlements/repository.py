"""Rows of quotas, limits and grants.

Reads name the tables as a bound transaction sees them; the system role writes, and looks into the pool.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry.entitlements import Source
from usage_service.domain.entitlement_periods import Cycle, Interval
from usage_service.domain.grants import Grant
from usage_service.domain.quotas import Limit, Quota
from usage_service.domain.windows import zone

Session = AsyncSession | AsyncConnection

# Chosen for the transaction: what runs for a request of an operator runs as the system role, which has no tenant.
_LOOK_INTO_POOL: Final = text("SELECT set_config('search_path', 'pool, pg_temp', true)")

WANTED: Final = "SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[]))"
_QUOTAS: Final = f"""
SELECT tenant_id, feature, meter, interval, time_zone, anchored_at, hard, alerts, given_by, version
  FROM quota WHERE (tenant_id, feature) IN ({WANTED})
"""  # noqa: S608 (our own text, as in those below)
_FIND_QUOTAS: Final = text(_QUOTAS)
_LOCK_QUOTAS: Final = text(_QUOTAS + "FOR UPDATE")
_LIMITS: Final = text(
    f"""
    SELECT tenant_id, feature, since, amount, interval, time_zone, anchored_at, pays_overage, preserve_overage,
           rollover_max, refill, resets
      FROM quota_limit WHERE (tenant_id, feature) IN ({WANTED}) ORDER BY since
    """  # noqa: S608
)
_HELD: Final = text(
    f"""
    SELECT tenant_id, feature, id, amount, priority, effective_at, expires_at, voided_at, rollover_min, rollover_max,
           recurrence, recurs_every, recurs_from, time_zone, created_at
      FROM quota_grant WHERE (tenant_id, feature) IN ({WANTED}) ORDER BY id
    """  # noqa: S608
)
_GRANTS: Final = text(
    """
    SELECT id, amount, priority, effective_at, expires_at, voided_at, rollover_min, rollover_max, recurrence,
           recurs_every, recurs_from, time_zone, created_at
      FROM quota_grant WHERE tenant_id = :tenant AND feature = :feature AND id > :after ORDER BY id LIMIT :limit
    """
)
_ADD_GRANT: Final = text(
    """
    INSERT INTO quota_grant (tenant_id, feature, id, amount, priority, effective_at, expires_at, rollover_min,
                             rollover_max, recurrence, recurs_every, recurs_from, time_zone, created_at)
    VALUES (:tenant, :feature, :id, :amount, :priority, :effective_at, :expires_at, :rollover_min,
            :rollover_max, :recurrence, :recurs_every, :recurs_from, :time_zone, :created_at)
    """
)
_VOID_GRANT: Final = text(
    """
    UPDATE quota_grant SET voided_at = COALESCE(voided_at, :at)
     WHERE tenant_id = :tenant AND feature = :feature AND id = :id
    """
)
_PUT_QUOTAS: Final = text(
    """
    INSERT INTO quota AS known (tenant_id, feature, meter, interval, time_zone, anchored_at, hard, alerts, given_by,
                                version, created_at)
    SELECT tenant_id, feature, meter, interval, time_zone, anchored_at, hard, CAST(alerts AS jsonb), given_by,
           1, clock_timestamp()
      FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[]), CAST(:meters AS text[]),
                  CAST(:intervals AS text[]), CAST(:time_zones AS text[]), CAST(:anchors AS timestamptz[]),
                  CAST(:hards AS boolean[]), CAST(:alerts AS text[]), CAST(:sources AS text[]))
           AS given (tenant_id, feature, meter, interval, time_zone, anchored_at, hard, alerts, given_by)
    ON CONFLICT (tenant_id, feature) DO UPDATE SET
           meter = excluded.meter, interval = excluded.interval, time_zone = excluded.time_zone,
           anchored_at = excluded.anchored_at, hard = excluded.hard, alerts = excluded.alerts,
           given_by = excluded.given_by, version = known.version + 1
     WHERE excluded.given_by = 'override' OR known.given_by <> 'override'
    RETURNING tenant_id, feature, version
    """
)
# Limits only ever grow at their end, from the period that runs on: what was put for a later instant is put anew.
_PUT_LIMITS: Final = text(
    """
    WITH given AS (
        SELECT *
          FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[]), CAST(:sinces AS timestamptz[]),
                      CAST(:amounts AS numeric[]), CAST(:intervals AS text[]), CAST(:time_zones AS text[]),
                      CAST(:anchors AS timestamptz[]), CAST(:pays AS boolean[]), CAST(:preserves AS boolean[]),
                      CAST(:rollovers AS numeric[]), CAST(:refills AS text[]), CAST(:resets AS boolean[]))
               AS given (tenant_id, feature, since, amount, interval, time_zone, anchored_at, pays_overage,
                         preserve_overage, rollover_max, refill, resets)),
    superseded AS (
        DELETE FROM quota_limit USING given
         WHERE (quota_limit.tenant_id, quota_limit.feature) = (given.tenant_id, given.feature)
           AND quota_limit.since > given.since)
    INSERT INTO quota_limit (tenant_id, feature, since, amount, interval, time_zone, anchored_at, pays_overage,
                             preserve_overage, rollover_max, refill, resets)
    SELECT * FROM given
    ON CONFLICT (tenant_id, feature, since) DO UPDATE SET
           amount = excluded.amount, interval = excluded.interval, time_zone = excluded.time_zone,
           anchored_at = excluded.anchored_at, pays_overage = excluded.pays_overage,
           preserve_overage = excluded.preserve_overage, rollover_max = excluded.rollover_max,
           refill = excluded.refill, resets = excluded.resets
    """
)
_DELETE_QUOTA: Final = (
    text("DELETE FROM quota_limit WHERE tenant_id = :tenant AND feature = :feature"),
    text("DELETE FROM quota_grant WHERE tenant_id = :tenant AND feature = :feature"),
    text("DELETE FROM quota WHERE tenant_id = :tenant AND feature = :feature"),
)
_ENTITLED: Final = text(
    """
    SELECT feature FROM (SELECT feature FROM quota WHERE tenant_id = :tenant AND given_by = 'override'
                         UNION SELECT feature FROM feature_access WHERE tenant_id = :tenant) AS entitled
     WHERE feature > :after ORDER BY feature LIMIT :limit
    """
)

Held = tuple[UUID, str]
"""A tenant and a feature."""


@dataclass(frozen=True, slots=True)
class StoredQuota:
    """A quota as it is stored, with the meter whose figure uses it up."""

    feature: str
    meter: str
    quota: Quota
    version: int
    source: Source = Source.OVERRIDE


async def look_into_pool(session: Session) -> None:
    """Has a transaction of the system role find the tables of tenants without naming their schema."""
    await session.execute(_LOOK_INTO_POOL)


async def find_quotas(session: Session, wanted: Collection[Held], *, lock: bool = False) -> dict[Held, StoredQuota]:
    """Those of the quotas that there are, with their limits and grants. `lock` is until the end of the transaction."""
    if not wanted:
        return {}
    keys = named(wanted)
    rows = (await session.execute(_LOCK_QUOTAS if lock else _FIND_QUOTAS, keys)).all()
    if not rows:
        return {}
    limits: dict[Held, list[Limit]] = defaultdict(list)
    for row in await session.execute(_LIMITS, keys):
        limits[row.tenant_id, row.feature].append(_limit(row))
    grants: dict[Held, list[Grant]] = defaultdict(list)
    for row in await session.execute(_HELD, keys):
        grants[row.tenant_id, row.feature].append(_grant(row))
    found = {}
    for row in rows:
        held = (row.tenant_id, row.feature)
        found[held] = _quota(row, limits[held], grants[held])
    return found


async def find_grants(session: Session, tenant_id: UUID, feature: str, *, after: UUID, limit: int) -> list[Grant]:
    """A page of grants by id, which is by age."""
    parameters = {"tenant": tenant_id, "feature": feature, "after": after, "limit": limit}
    return [_grant(row) for row in await session.execute(_GRANTS, parameters)]


async def add_grant(session: Session, tenant_id: UUID, feature: str, grant: Grant) -> None:
    cycle = grant.recurrence
    await session.execute(
        _ADD_GRANT,
        {
            "tenant": tenant_id,
            "feature": feature,
            "id": UUID(grant.id),
            "amount": grant.amount,
            "priority": grant.priority,
            "effective_at": grant.effective_at,
            "expires_at": grant.expires_at,
            "rollover_min": grant.rollover_min,
            "rollover_max": grant.rollover_max,
            "recurrence": None if cycle is None else cycle.interval,
            "recurs_every": 1 if cycle is None else cycle.every,
            "recurs_from": None if cycle is None else cycle.anchor,
            "time_zone": "UTC" if cycle is None else cycle.zone.key,
            "created_at": grant.created_at,
        },
    )


async def void_grant(session: Session, tenant_id: UUID, feature: str, grant_id: UUID, at: datetime) -> None:
    """Ends a grant at an instant, unless it was voided before."""
    await session.execute(_VOID_GRANT, {"tenant": tenant_id, "feature": feature, "id": grant_id, "at": at})


async def put_quotas(session: Session, quotas: Mapping[Held, StoredQuota]) -> dict[Held, int]:
    """Stores quotas with the last of their limits; returns their versions.

    One that a tier or a plan gives does not replace one that was put for the tenant, and has no version here then.
    """
    if not quotas:
        return {}
    stored = list(quotas.values())
    terms = [each.quota for each in stored]
    rows = await session.execute(
        _PUT_QUOTAS,
        {
            **named(quotas),
            **_cycles([each.cycle for each in terms]),
            "meters": [each.meter for each in stored],
            "hards": [each.hard for each in terms],
            "alerts": [json.dumps([str(alert) for alert in each.alerts]) for each in terms],
            "sources": [each.source for each in stored],
        },
    )
    versions = {(row.tenant_id, row.feature): row.version for row in rows}
    if versions:
        limits = [quotas[held].quota.limit for held in versions]
        await session.execute(
            _PUT_LIMITS,
            {
                **named(versions),
                **_cycles([each.cycle for each in limits]),
                "sinces": [each.since for each in limits],
                "amounts": [each.amount for each in limits],
                "pays": [each.pays_overage for each in limits],
                "preserves": [each.preserve_overage for each in limits],
                "rollovers": [each.rollover_max for each in limits],
                "refills": [each.refill for each in limits],
                "resets": [each.resets for each in limits],
            },
        )
    return versions


async def delete_quota(session: Session, tenant_id: UUID, feature: str) -> None:
    """Deletes a quota with its limits and grants."""
    for statement in _DELETE_QUOTA:
        await session.execute(statement, {"tenant": tenant_id, "feature": feature})


async def find_entitled(session: Session, tenant_id: UUID, *, after: str, limit: int) -> Sequence[str]:
    """A page of the features that a tenant has something of, by name."""
    parameters = {"tenant": tenant_id, "after": after, "limit": limit}
    return (await session.execute(_ENTITLED, parameters)).scalars().all()


def named(wanted: Collection[Held]) -> dict[str, Any]:
    """The parameters of a statement about tenants and features."""
    return {"tenants": [tenant_id for tenant_id, _ in wanted], "features": [feature for _, feature in wanted]}


def _cycles(cycles: Sequence[Cycle]) -> dict[str, Any]:
    return {
        "intervals": [each.interval for each in cycles],
        "time_zones": [each.zone.key for each in cycles],
        "anchors": [each.anchor for each in cycles],
    }


def _cycle(row: Row[Any]) -> Cycle:
    return Cycle(Interval(row.interval), row.anchored_at, zone(row.time_zone))


def _limit(row: Row[Any]) -> Limit:
    return Limit(
        since=row.since,
        amount=row.amount,
        cycle=_cycle(row),
        pays_overage=row.pays_overage,
        preserve_overage=row.preserve_overage,
        rollover_max=row.rollover_max,
        refill=None if row.refill is None else Interval(row.refill),
        resets=row.resets,
    )


def _quota(row: Row[Any], limits: Sequence[Limit], grants: Sequence[Grant]) -> StoredQuota:
    quota = Quota(
        cycle=_cycle(row),
        limits=tuple(limits),
        grants=tuple(grants),
        hard=row.hard,
        alerts=tuple(Decimal(each) for each in row.alerts),
    )
    return StoredQuota(row.feature, row.meter, quota, row.version, Source(row.given_by))


def _grant(row: Row[Any]) -> Grant:
    recurrence = None
    if row.recurrence is not None:
        recurrence = Cycle(Interval(row.recurrence), row.recurs_from, zone(row.time_zone), row.recurs_every)
    return Grant(
        id=str(row.id),
        amount=row.amount,
        priority=row.priority,
        effective_at=row.effective_at,
        expires_at=row.expires_at,
        voided_at=row.voided_at,
        rollover_min=row.rollover_min,
        rollover_max=row.rollover_max,
        recurrence=recurrence,
        created_at=row.created_at,
    )
