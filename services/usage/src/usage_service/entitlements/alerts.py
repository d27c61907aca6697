"""Which thresholds of quotas are crossed: told on `usage.alerts.v1` when one is, and when it is not any more.

An alert is a row whose key is the tenant, the feature, the period and the threshold; what changes it is written with
its message. So each crossing is told once, and so is its end: by a correction, a raised limit, a reset, a quota that is
taken away. What a period crossed stays said once it is over. A gauge (a meter of the latest value) goes up and down by
nature: its alert ends only when usage has fallen below nine tenths of the threshold.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import UUID, uuid5

import msgspec
from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.events import OutboxEvent
from usage_service.domain.entitlements import Value, crossed
from usage_service.domain.grants import ZERO
from usage_service.domain.instants import rfc3339
from usage_service.domain.meters import Aggregation
from usage_service.domain.quantities import number_text
from usage_service.entitlements.links import events_link
from usage_service.entitlements.repository import Held, StoredQuota, named

TOPIC: Final = "usage.alerts.v1"
CROSSED: Final = "usage.threshold-crossed"
CLEARED: Final = "usage.threshold-cleared"

TOLD = Counter("usage_alerts_total", "Thresholds of quotas that were crossed, or are not any more", ["state"])

_GAUGE_WITHIN: Final = Decimal("0.1")
_LOOKED_BACK: Final = timedelta(days=1)
_LINEAGE: Final = UUID("6f1f8a3e-6d5b-5a52-9c43-2f6f6b1c7d10")

Key = tuple[UUID, str, datetime, Decimal]
"""Tenant, feature, start of the period, threshold."""

_KNOWN: Final = text(
    """
    SELECT tenant_id, feature, period_start, threshold, resets_at, raised FROM pool.entitlement_alert
     WHERE (tenant_id, feature) IN (SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[])))
       AND resets_at > :after
    """
)
# A tenant's alerts have one row of numbers, whatever they are about, and whoever tells them has the tenant's lock.
WITH_LAST_NUMBER: Final = """
CROSS JOIN LATERAL (
      SELECT GREATEST(COALESCE((SELECT max(number) FROM pool.entitlement_alert AS alert
                                 WHERE alert.tenant_id = told.tenant_id), 0),
                      COALESCE((SELECT max(number) FROM pool.not_counted AS alert
                                 WHERE alert.tenant_id = told.tenant_id), 0)) AS number) AS last
"""
# What is as it was does not come back.
_CHANGE: Final = text(
    f"""
    INSERT INTO pool.entitlement_alert AS given
           (tenant_id, feature, period_start, threshold, resets_at, raised, crossed_at, sequence, number)
    SELECT told.tenant_id, told.feature, told.period_start, told.threshold, told.resets_at, told.raised, told.now, 1,
           last.number + row_number() OVER (PARTITION BY told.tenant_id ORDER BY period_start, feature, threshold)
      FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[]), CAST(:periods AS timestamptz[]),
                  CAST(:thresholds AS numeric[]), CAST(:resets AS timestamptz[]), CAST(:raised AS boolean[]),
                  CAST(:nows AS timestamptz[]))
           AS told (tenant_id, feature, period_start, threshold, resets_at, raised, now)
     {WITH_LAST_NUMBER}
    ON CONFLICT (tenant_id, feature, period_start, threshold) DO UPDATE SET
           raised = excluded.raised, crossed_at = excluded.crossed_at, sequence = given.sequence + 1,
           number = excluded.number, resets_at = excluded.resets_at
     WHERE given.raised <> excluded.raised
    RETURNING tenant_id, feature, period_start, threshold, raised, sequence, number
    """  # noqa: S608 (our own text)
)
# The greatest number of a tenant stays, for those that follow.
_FORGET_OLD: Final = text(
    """
    DELETE FROM pool.entitlement_alert AS old
     WHERE COALESCE(resets_at, crossed_at) < :before
       AND EXISTS (SELECT FROM pool.entitlement_alert AS later
                    WHERE later.tenant_id = old.tenant_id AND later.number > old.number)
    """
)


class AlertRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record of `usage.alerts.v1`: `usage` has reached `threshold` of `limit` in this period, or has not
    any more (`cleared`). `events` is where the events behind `usage` are listed.

    `id` is the same for all that is told of a threshold in a period, `sequence` counts it from 1. Without `usage` and
    `limit` the quota was taken away.
    """

    id: str
    sequence: int
    state: Literal["raised", "cleared"]
    tenant_id: str
    feature: str
    threshold: str
    usage: str | None
    limit: str | None
    period_start: str
    resets_at: str
    events: str | None


@dataclass(frozen=True, slots=True)
class Watched:
    """What a quota is worth in a period, by a figure of this kind."""

    held: Held
    stored: StoredQuota
    aggregation: Aggregation | None
    value: Value
    now: datetime


@dataclass(frozen=True, slots=True)
class _Change:
    raised: bool
    resets_at: datetime
    now: datetime
    watched: Watched | None


async def tell_alerts(
    session: AsyncSession, nows: Collection[tuple[Held, datetime]], watched: Sequence[Watched]
) -> list[OutboxEvent]:
    """Stores what changes of the alerts of tenants and features, and returns its messages. The caller holds the
    tenants' locks and commits.
    """
    present = dict(nows)
    values = {(*each.held, each.value.period.start): each for each in watched}
    # Back to the first period that is looked at, and farther than the last one, for which the clock may be behind.
    after = min([min(present.values()) - _LOOKED_BACK, *(each.value.period.start for each in watched)])
    rows = await session.execute(_KNOWN, {**named(present), "after": after})
    known = {(row.tenant_id, row.feature, row.period_start, row.threshold): row for row in rows}
    changes: dict[Key, _Change] = {}
    kept: set[Key] = set()
    for each in watched:
        period, quota = each.value.period, each.stored.quota
        within = _GAUGE_WITHIN if each.aggregation is Aggregation.LATEST else ZERO
        reached = crossed(quota, each.value)
        for threshold in crossed(quota, each.value, within=within):
            key = (*each.held, period.start, threshold)
            row = known.get(key)
            # Who was told that it lasts longer than the period did, before a reset, is told of its end.
            if row is not None and row.resets_at > period.end:
                continue
            kept.add(key)
            if threshold in reached and (row is None or not row.raised):
                changes[key] = _Change(raised=True, resets_at=period.end, now=each.now, watched=each)
    for key, row in known.items():
        now = present[key[0], key[1]]
        if row.raised and key not in kept and (key[:3] in values or row.resets_at > now):
            changes[key] = _Change(raised=False, resets_at=row.resets_at, now=now, watched=values.get(key[:3]))
    return await _store(session, changes) if changes else []


async def forget_alerts(session: AsyncSession, before: datetime) -> None:
    """Forgets what was told of periods that ended before an instant."""
    await session.execute(_FORGET_OLD, {"before": before})


async def _store(session: AsyncSession, changes: dict[Key, _Change]) -> list[OutboxEvent]:
    parameters: dict[str, Any] = {
        "tenants": [tenant_id for tenant_id, _, _, _ in changes],
        "features": [feature for _, feature, _, _ in changes],
        "periods": [period for _, _, period, _ in changes],
        "thresholds": [threshold for _, _, _, threshold in changes],
        "resets": [change.resets_at for change in changes.values()],
        "raised": [change.raised for change in changes.values()],
        "nows": [change.now for change in changes.values()],
    }
    events = []
    for row in await session.execute(_CHANGE, parameters):
        key = (row.tenant_id, row.feature, row.period_start, row.threshold)
        change, threshold, start = changes[key], number_text(row.threshold), rfc3339(row.period_start)
        watched = change.watched
        record = AlertRecord(
            id=str(uuid5(_LINEAGE, f"{row.tenant_id}/{row.feature}/{start}/{threshold}")),
            sequence=row.sequence,
            state="raised" if row.raised else "cleared",
            tenant_id=str(row.tenant_id),
            feature=row.feature,
            threshold=threshold,
            usage=None if watched is None else number_text(watched.value.usage),
            limit=None if watched is None else number_text(watched.value.available),
            period_start=start,
            resets_at=rfc3339(change.resets_at),
            events=None if watched is None else events_link(row.tenant_id, watched.stored.meter, watched.value.period),
        )
        events.append(
            OutboxEvent(
                topic=TOPIC,
                key=str(row.tenant_id),
                type=CROSSED if row.raised else CLEARED,
                data=record,
                version=row.number,
                tenant_id=row.tenant_id,
            )
        )
    return sorted(events, key=lambda event: (event.key, event.version))
