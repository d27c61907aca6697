"""Rows of features, quotas, limits and grants.

Reads name the tables as a bound transaction sees them; the system role writes, and looks into the pool.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import CursorResult, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry.entitlements import Source
from usage_service.domain.entitlement_periods import Cycle, Interval
from usage_service.domain.entitlements import FeatureKind, Limit, Quota
from usage_service.domain.grants import Grant
from usage_service.domain.windows import zone

Session = AsyncSession | AsyncConnection

# Chosen for the transaction: what runs for a request of an operator runs as the system role, which has no tenant.
_LOOK_INTO_POOL: Final = text("SELECT set_config('search_path', 'pool, pg_temp', true)")

_FEATURE: Final = text("SELECT slug, kind, meter FROM system.feature WHERE slug = :slug")
_FEATURES: Final = text("SELECT slug, kind, meter FROM system.feature WHERE slug > :after ORDER BY slug LIMIT :limit")
_FEATURES_NAMED: Final = text("SELECT slug, kind, meter FROM system.feature WHERE slug = ANY(CAST(:slugs AS text[]))")
_ADD_FEATURE: Final = text(
    """
    INSERT INTO system.feature (slug, kind, meter, created_at) VALUES (:slug, :kind, :meter, clock_timestamp())
    ON CONFLICT (slug) DO NOTHING
    """
)
_WANTED: Final = "SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[]))"
_QUOTAS: Final = f"""
SELECT tenant_id, feature, meter, interval, time_zone, anchored_at, since, hard, pays_overage, preserve_overage,
       rollover_max, refill, alerts, given_by, version
  FROM quota WHERE (tenant_id, feature) IN ({_WANTED})
"""  # noqa: S608 (our own text, as in those below)
_FIND_QUOTAS: Final = text(_QUOTAS)
_LOCK_QUOTAS: Final = text(_QUOTAS + "FOR UPDATE")
_LIMITS: Final = text(
    f"""
    SELECT tenant_id, feature, since, amount FROM quota_limit WHERE (tenant_id, feature) IN ({_WANTED})
     ORDER BY since
    """  # noqa: S608
)
_HELD: Final = text(
    f"""
    SELECT tenant_id, feature, id, amount, priority, effective_at, expires_at, voided_at, rollover_min, rollover_max,
           recurrence, recurs_from, time_zone, created_at
      FROM quota_grant WHERE (tenant_id, feature) IN ({_WANTED}) ORDER BY id
    """  # noqa: S608
)
_GRANTS: Final = text(
    """
    SELECT id, amount, priority, effective_at, expires_at, voided_at, rollover_min, rollover_max, recurrence,
           recurs_from, time_zone, created_at
      FROM quota_grant WHERE tenant_id = :tenant AND feature = :feature AND id > :after ORDER BY id LIMIT :limit
    """
)
_ADD_GRANT: Final = text(
    """
    INSERT INTO quota_grant (tenant_id, feature, id, amount, priority, effective_at, expires_at, rollover_min,
                             rollover_max, recurrence, recurs_from, time_zone, created_at)
    VALUES (:tenant, :feature, :id, :amount, :priority, :effective_at, :expires_at, :rollover_min,
            :rollover_max, :recurrence, :recurs_from, :time_zone, :created_at)
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
    INSERT INTO quota AS known (tenant_id, feature, meter, interval, time_zone, anchored_at, since, hard, pays_overage,
                                preserve_overage, rollover_max, refill, alerts, given_by, version, created_at)
    SELECT tenant_id, feature, meter, interval, time_zone, anchored_at, since, hard, pays_overage, preserve_overage,
           rollover_max, refill, CAST(alerts AS jsonb), given_by, 1, clock_timestamp()
      FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[]), CAST(:meters AS text[]),
                  CAST(:intervals AS text[]), CAST(:time_zones AS text[]), CAST(:anchors AS timestamptz[]),
                  CAST(:sinces AS timestamptz[]), CAST(:hards AS boolean[]), CAST(:pays AS boolean[]),
                  CAST(:preserves AS boolean[]), CAST(:rollovers AS numeric[]), CAST(:refills AS text[]),
                  CAST(:alerts AS text[]), CAST(:sources AS text[]))
           AS given (tenant_id, feature, meter, interval, time_zone, anchored_at, since, hard, pays_overage,
                     preserve_overage, rollover_max, refill, alerts, given_by)
    ON CONFLICT (tenant_id, feature) DO UPDATE SET
           meter = excluded.meter, interval = excluded.interval, time_zone = excluded.time_zone,
           anchored_at = excluded.anchored_at, since = excluded.since, hard = excluded.hard,
           pays_overage = excluded.pays_overage, preserve_overage = excluded.preserve_overage,
           rollover_max = excluded.rollover_max, refill = excluded.refill, alerts = excluded.alerts,
           given_by = excluded.given_by, version = known.version + 1
     WHERE excluded.given_by = 'override' OR known.given_by <> 'override'
    RETURNING tenant_id, feature, version
    """
)
_PUT_LIMITS: Final = text(
    """
    INSERT INTO quota_limit (tenant_id, feature, since, amount)
    SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[]), CAST(:sinces AS timestamptz[]),
                         CAST(:amounts AS numeric[]))
    ON CONFLICT (tenant_id, feature, since) DO UPDATE SET amount = excluded.amount
    """
)
_DELETE_QUOTA: Final = (
    text("DELETE FROM quota_limit WHERE tenant_id = :tenant AND feature = :feature"),
    text("DELETE FROM quota_grant WHERE tenant_id = :tenant AND feature = :feature"),
    text("DELETE FROM quota WHERE tenant_id = :tenant AND feature = :feature"),
)
_ACCESSES: Final = text(
    f"""
    SELECT tenant_id, feature, enabled, config, version FROM feature_access WHERE (tenant_id, feature) IN ({_WANTED})
    """  # noqa: S608
)
_PUT_ACCESS: Final = text(
    """
    INSERT INTO feature_access AS known (tenant_id, feature, enabled, config, version)
    VALUES (:tenant, :feature, :enabled, :config, 1)
    ON CONFLICT (tenant_id, feature) DO UPDATE SET
           enabled = excluded.enabled, config = excluded.config, version = known.version + 1
    RETURNING version
    """
).bindparams(bindparam("config", type_=JSONB(none_as_null=True)))
_DELETE_ACCESS: Final = text("DELETE FROM feature_access WHERE tenant_id = :tenant AND feature = :feature")
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
class Feature:
    slug: str
    kind: FeatureKind
    meter: str | None


@dataclass(frozen=True, slots=True)
class StoredQuota:
    """A quota as it is stored, with the meter whose figure uses it up."""

    feature: str
    meter: str
    quota: Quota
    version: int
    source: Source = Source.OVERRIDE


@dataclass(frozen=True, slots=True)
class Access:
    feature: str
    enabled: bool
    config: Any
    version: int


async def look_into_pool(session: Session) -> None:
    """Has a transaction of the system role find the tables of tenants without naming their schema."""
    await session.execute(_LOOK_INTO_POOL)


async def find_feature(session: Session, slug: str) -> Feature | None:
    row = (await session.execute(_FEATURE, {"slug": slug})).one_or_none()
    return None if row is None else _feature(row)


async def find_features_named(session: Session, slugs: Collection[str]) -> dict[str, Feature]:
    if not slugs:
        return {}
    return {row.slug: _feature(row) for row in await session.execute(_FEATURES_NAMED, {"slugs": list(slugs)})}


async def find_features(session: Session, *, after: str, limit: int) -> list[Feature]:
    """A page of features by name."""
    return [_feature(row) for row in await session.execute(_FEATURES, {"after": after, "limit": limit})]


async def add_feature(session: Session, feature: Feature) -> None:
    """Adds a feature where there is none of its name."""
    await session.execute(_ADD_FEATURE, {"slug": feature.slug, "kind": feature.kind, "meter": feature.meter})


async def find_quotas(session: Session, wanted: Collection[Held], *, lock: bool = False) -> dict[Held, StoredQuota]:
    """Those of the quotas that there are, with their limits and grants. `lock` is until the end of the transaction."""
    if not wanted:
        return {}
    named = _named(wanted)
    rows = (await session.execute(_LOCK_QUOTAS if lock else _FIND_QUOTAS, named)).all()
    if not rows:
        return {}
    limits: dict[Held, list[Limit]] = defaultdict(list)
    for row in await session.execute(_LIMITS, named):
        limits[row.tenant_id, row.feature].append(Limit(row.since, row.amount))
    grants: dict[Held, list[Grant]] = defaultdict(list)
    for row in await session.execute(_HELD, named):
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
            **_named(quotas),
            "meters": [each.meter for each in stored],
            "intervals": [each.cycle.interval for each in terms],
            "time_zones": [each.cycle.zone.key for each in terms],
            "anchors": [each.cycle.anchor for each in terms],
            "sinces": [each.since for each in terms],
            "hards": [each.hard for each in terms],
            "pays": [each.pays_overage for each in terms],
            "preserves": [each.preserve_overage for each in terms],
            "rollovers": [each.rollover_max for each in terms],
            "refills": [each.refill for each in terms],
            "alerts": [json.dumps([str(alert) for alert in each.alerts]) for each in terms],
            "sources": [each.source for each in stored],
        },
    )
    versions = {(row.tenant_id, row.feature): row.version for row in rows}
    limits = {held: quotas[held].quota.limits[-1] for held in versions}
    if limits:
        await session.execute(
            _PUT_LIMITS,
            {
                **_named(limits),
                "sinces": [limit.since for limit in limits.values()],
                "amounts": [limit.amount for limit in limits.values()],
            },
        )
    return versions


async def delete_quota(session: Session, tenant_id: UUID, feature: str) -> None:
    """Deletes a quota with its limits and grants."""
    for statement in _DELETE_QUOTA:
        await session.execute(statement, {"tenant": tenant_id, "feature": feature})


async def find_accesses(session: Session, wanted: Collection[Held]) -> dict[Held, Access]:
    """What tenants have of features that are not metered, where they have anything."""
    if not wanted:
        return {}
    rows = await session.execute(_ACCESSES, _named(wanted))
    return {(row.tenant_id, row.feature): Access(row.feature, row.enabled, row.config, row.version) for row in rows}


async def put_access(session: Session, tenant_id: UUID, access: Access) -> int:
    """Stores what a tenant has of a feature; returns its version."""
    parameters = {
        "tenant": tenant_id,
        "feature": access.feature,
        "enabled": access.enabled,
        "config": access.config,
    }
    version: int = (await session.execute(_PUT_ACCESS, parameters)).scalar_one()
    return version


async def delete_access(session: Session, tenant_id: UUID, feature: str) -> bool:
    """Takes back what was put for a tenant of a feature; returns whether anything was."""
    deleted = await session.execute(_DELETE_ACCESS, {"tenant": tenant_id, "feature": feature})
    return cast("CursorResult[Any]", deleted).rowcount > 0


async def find_entitled(session: Session, tenant_id: UUID, *, after: str, limit: int) -> Sequence[str]:
    """A page of the features that a tenant has something of, by name."""
    parameters = {"tenant": tenant_id, "after": after, "limit": limit}
    return (await session.execute(_ENTITLED, parameters)).scalars().all()


def _named(wanted: Collection[Held]) -> dict[str, Any]:
    return {"tenants": [tenant_id for tenant_id, _ in wanted], "features": [feature for _, feature in wanted]}


def _quota(row: Row[Any], limits: Sequence[Limit], grants: Sequence[Grant]) -> StoredQuota:
    quota = Quota(
        cycle=Cycle(Interval(row.interval), row.anchored_at, zone(row.time_zone)),
        since=row.since,
        limits=tuple(limits),
        grants=tuple(grants),
        hard=row.hard,
        pays_overage=row.pays_overage,
        preserve_overage=row.preserve_overage,
        rollover_max=row.rollover_max,
        refill=None if row.refill is None else Interval(row.refill),
        alerts=tuple(Decimal(each) for each in row.alerts),
    )
    return StoredQuota(row.feature, row.meter, quota, row.version, Source(row.given_by))


def _feature(row: Row[Any]) -> Feature:
    return Feature(row.slug, FeatureKind(row.kind), row.meter)


def _grant(row: Row[Any]) -> Grant:
    recurrence = None
    if row.recurrence is not None:
        recurrence = Cycle(Interval(row.recurrence), row.recurs_from, zone(row.time_zone))
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
