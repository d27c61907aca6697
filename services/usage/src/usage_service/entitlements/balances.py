"""Keeps balances (`usage.balances.v1`), and tells which thresholds they cross (`usage.alerts.v1`).

What may have changed a balance (published rollups, a quota, a grant, a turn of the clock) appends to a queue, in the
transaction that changes it. A step takes a part of the queue and works out, in one transaction, what those quotas are
worth now: from rollups, limits and grants as they are committed, never by adding to the last balance. So a step that is
killed leaves everything as it was, and one that runs twice says the same thing twice. Steps of the same tenant come one
after the other: each reads only once it has the tenant's lock, so the later one knows at least as much.

An alert is a row whose key is the tenant, the feature, the period and the threshold; it is written with its message. A
correction that takes usage below the threshold and above it again finds the row there, as a raised limit does: a
threshold alerts once in a period.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NoReturn
from uuid import UUID

import msgspec
from prometheus_client import Counter
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry import Clock, TenantDirectory
from tenantry.database import Databases
from tenantry.events import OutboxEvent, append_outbox_many
from usage_service.domain.entitlements import (
    MAX_GRANTS,
    Value,
    course_of,
    crossed,
    follow,
    next_turn,
    period_at,
    value_of,
)
from usage_service.domain.instants import rfc3339
from usage_service.domain.meters import Meter
from usage_service.domain.quantities import number_text
from usage_service.entitlements.measuring import measure
from usage_service.entitlements.repository import (
    Access,
    StoredQuota,
    find_access,
    find_quota,
    look_into_pool,
)
from usage_service.meters.repository import versions_of

TOPIC: Final = "usage.balances.v1"
ALERTS: Final = "usage.alerts.v1"
BALANCE: Final = "usage.balance"
ALERT: Final = "usage.threshold-crossed"

PUBLISHED = Counter("usage_balances_published_total", "Balances published, an update counts again")
ALERTED = Counter("usage_alerts_total", "Thresholds of quotas that were crossed")

_TAKEN: Final = 200  # changes in one transaction
_PAUSE_SECONDS: Final = 0.2  # lets changes of the same balance come together
_PAST_ALERTS: Final = timedelta(hours=1)  # how long after its end a period still alerts: its last usage is counted late

_TAKE: Final = text(
    """
    DELETE FROM system.balance_change
     WHERE id IN (SELECT id FROM system.balance_change ORDER BY id LIMIT :taken FOR UPDATE SKIP LOCKED)
    RETURNING tenant_id, feature
    """
)
# A balance is queued once for a turn: working it out says when the next one is. Tenants on a test clock live by that,
# and are asked for apart, so that the index finds the others.
_TURN = """
WITH turned AS (
    UPDATE pool.entitlement_balance AS balance SET next_turn = NULL
      FROM (SELECT due.tenant_id, due.feature FROM pool.entitlement_balance AS due {clocked}
             LIMIT :taken FOR UPDATE OF due SKIP LOCKED) AS due
     WHERE (balance.tenant_id, balance.feature) = (due.tenant_id, due.feature)
    RETURNING balance.tenant_id, balance.feature)
INSERT INTO system.balance_change (tenant_id, feature) SELECT tenant_id, feature FROM turned
"""
_TURN_BY_TIME: Final = text(
    _TURN.format(clocked="WHERE due.next_turn <= :now AND due.tenant_id <> ALL(CAST(:tenants AS uuid[]))")
)
_TURN_BY_CLOCKS: Final = text(
    _TURN.format(
        clocked="""
        JOIN unnest(CAST(:tenants AS uuid[]), CAST(:nows AS timestamptz[])) AS clocked (tenant_id, now)
          ON clocked.tenant_id = due.tenant_id AND due.next_turn <= clocked.now
        """
    )
)
_LOCK: Final = text(
    "SELECT pg_advisory_xact_lock(hashtextextended('usage.balances', 0) # hashtextextended(:tenant, 0))"
)
_KNOWN: Final = text(
    """
    SELECT tenant_id, feature, document, version FROM pool.entitlement_balance
     WHERE (tenant_id, feature) IN (SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[])))
    """
)
_STORE: Final = text(
    """
    INSERT INTO pool.entitlement_balance (tenant_id, feature, document, version, next_turn)
    SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[]), CAST(:documents AS text[]),
                         CAST(:versions AS bigint[]), CAST(:turns AS timestamptz[]))
    ON CONFLICT (tenant_id, feature) DO UPDATE SET
           document = excluded.document, version = excluded.version, next_turn = excluded.next_turn
    """
)
# Only the alerts that were not given before come back. The tenant's lock is held, so nobody else numbers its alerts.
_CROSS: Final = text(
    """
    INSERT INTO pool.entitlement_alert (tenant_id, feature, period_start, threshold, number, crossed_at)
    SELECT :tenant, :feature, :period, threshold, known.number + ordinal, :now
      FROM unnest(CAST(:thresholds AS numeric[])) WITH ORDINALITY AS crossed (threshold, ordinal),
           (SELECT COALESCE(max(number), 0) AS number FROM pool.entitlement_alert WHERE tenant_id = :tenant) AS known
    ON CONFLICT (tenant_id, feature, period_start, threshold) DO NOTHING
    RETURNING threshold, number
    """
)


class BalanceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record of `usage.balances.v1`. Amounts are texts; a feature that is not metered has none.

    `limit` is what the period gives, grants and rollover included; `balance` is what of it is left until `resets_at`.
    """

    tenant_id: str
    feature: str
    has_access: bool
    hard: bool = False
    balance: str | None = None
    usage: str | None = None
    overage: str | None = None
    limit: str | None = None
    period_start: str | None = None
    resets_at: str | None = None
    config: Any = None

    @classmethod
    def of_access(cls, tenant_id: UUID, access: Access) -> BalanceRecord:
        return cls(tenant_id=str(tenant_id), feature=access.feature, has_access=access.enabled, config=access.config)

    @classmethod
    def of_value(cls, tenant_id: UUID, stored: StoredQuota, value: Value) -> BalanceRecord:
        return cls(
            tenant_id=str(tenant_id),
            feature=stored.feature,
            has_access=value.has_access,
            hard=stored.quota.hard,
            balance=number_text(value.balance),
            usage=number_text(value.usage),
            overage=number_text(value.overage),
            limit=number_text(value.available),
            period_start=rfc3339(value.period.start),
            resets_at=rfc3339(value.period.end),
        )


class AlertRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record of `usage.alerts.v1`: `usage` has reached `threshold` of `limit` in this period."""

    tenant_id: str
    feature: str
    threshold: str
    usage: str
    limit: str
    period_start: str
    resets_at: str


@dataclass(frozen=True, slots=True)
class Worked:
    """What was worked out of one feature of a tenant; `record` None where the tenant has nothing of it any more."""

    record: BalanceRecord | None = None
    turn: datetime | None = None


@dataclass(slots=True)
class _Step:
    """What one transaction knows and writes."""

    session: AsyncSession
    meters: dict[str, list[Meter]] = field(default_factory=dict)
    events: list[OutboxEvent] = field(default_factory=list)
    alerted: int = 0

    async def versions(self, slug: str) -> list[Meter]:
        if slug not in self.meters:
            self.meters[slug] = await versions_of(self.session, slug)
        return self.meters[slug]


class BalanceKeeper:
    """Works off the queue until cancelled; any number of processes may run one."""

    def __init__(self, databases: Databases, directory: TenantDirectory, clock: Clock) -> None:
        self._databases = databases
        self._directory = directory
        self._clock = clock

    async def run(self) -> NoReturn:
        while True:
            await self.queue_turns()
            while await self.step() == _TAKEN:
                pass
            await asyncio.sleep(_PAUSE_SECONDS)

    async def queue_turns(self) -> None:
        """Queues the balances whose time has come to change without any usage."""
        clocked = {tenant.id: tenant.clock.now for tenant in self._directory if tenant.clock is not None}
        tenants: dict[str, Any] = {"tenants": list(clocked), "taken": _TAKEN}
        async with self._databases.system_session() as session:
            await session.execute(_TURN_BY_TIME, {**tenants, "now": self._clock.now()})
            if clocked:
                await session.execute(_TURN_BY_CLOCKS, {**tenants, "nows": list(clocked.values())})

    async def step(self) -> int:
        """Works out a part of the queue, in one transaction; returns how many changes it took."""
        async with self._databases.system_session() as session:
            taken = (await session.execute(_TAKE, {"taken": _TAKEN})).all()
            if not taken:
                return 0
            step = _Step(session)
            await look_into_pool(session)
            due: dict[UUID, set[str]] = defaultdict(set)
            for row in taken:
                if not self._directory.is_purged(row.tenant_id):
                    due[row.tenant_id].add(row.feature)
            # In one order, so that two steps never wait for each other.
            for tenant_id in sorted(due):
                await session.execute(_LOCK, {"tenant": str(tenant_id)})
            worked = {
                (tenant_id, feature): await self._work_out(step, tenant_id, feature)
                for tenant_id in sorted(due)
                for feature in sorted(due[tenant_id])
            }
            published = await _store(step, worked)
            await append_outbox_many(session, step.events)
        PUBLISHED.inc(published)
        ALERTED.inc(step.alerted)
        return len(taken)

    async def _work_out(self, step: _Step, tenant_id: UUID, feature: str) -> Worked:
        tenant = self._directory.get(tenant_id)
        now = self._clock.now() if tenant is None else tenant.now(self._clock)
        stored = await find_quota(step.session, tenant_id, feature, grants=MAX_GRANTS)
        if stored is None:
            access = await find_access(step.session, tenant_id, feature)
            return Worked() if access is None else Worked(BalanceRecord.of_access(tenant_id, access))
        period = period_at(stored.quota, now)
        if stored.quota.alerts and stored.quota.since < period.start and now - period.start < _PAST_ALERTS:
            before = await _value(step, tenant_id, stored, period.start, just_before=True)
            await _alert(step, tenant_id, stored, before, now)
        value = await _value(step, tenant_id, stored, now)
        await _alert(step, tenant_id, stored, value, now)
        return Worked(BalanceRecord.of_value(tenant_id, stored, value), next_turn(stored.quota, now))


async def withdraw_balances(connection: AsyncConnection, balances: Sequence[Row[Any]]) -> None:
    """Have balances that are deleted in this transaction withdrawn from the topic."""
    await append_outbox_many(
        connection, [_event(each.tenant_id, each.feature, None, each.version + 1) for each in balances]
    )


async def _value(
    step: _Step, tenant_id: UUID, stored: StoredQuota, at: datetime, *, just_before: bool = False
) -> Value:
    """The value at an instant, or the last one of the period that ends there."""
    quota = stored.quota
    course = course_of(quota, at, just_before=just_before)
    usage = await measure(step.session, tenant_id, await step.versions(stored.meter), quota, course)
    burnt = follow(course, usage)
    if just_before:
        return value_of(quota, burnt.closing, period_at(quota, at - timedelta(microseconds=1)))
    return value_of(quota, burnt.carried, period_at(quota, at))


async def _alert(step: _Step, tenant_id: UUID, stored: StoredQuota, value: Value, now: datetime) -> None:
    thresholds = crossed(stored.quota, value)
    if not thresholds:
        return
    parameters = {
        "tenant": tenant_id,
        "feature": stored.feature,
        "period": value.period.start,
        "thresholds": thresholds,
        "now": now,
    }
    new: Iterable[Row[Any]] = (await step.session.execute(_CROSS, parameters)).all()
    for row in new:
        record = AlertRecord(
            tenant_id=str(tenant_id),
            feature=stored.feature,
            threshold=number_text(Decimal(row.threshold)),
            usage=number_text(value.usage),
            limit=number_text(value.available),
            period_start=rfc3339(value.period.start),
            resets_at=rfc3339(value.period.end),
        )
        step.alerted += 1
        step.events.append(
            OutboxEvent(
                topic=ALERTS, key=str(tenant_id), type=ALERT, data=record, version=row.number, tenant_id=tenant_id
            )
        )


async def _store(step: _Step, worked: Mapping[tuple[UUID, str], Worked]) -> int:
    """Stores what was worked out, and publishes what of it is new; returns how many are."""
    keys = {"tenants": [tenant for tenant, _ in worked], "features": [feature for _, feature in worked]}
    known = {(row.tenant_id, row.feature): row for row in await step.session.execute(_KNOWN, keys)}
    documents, versions = [], []
    for (tenant_id, feature), each in worked.items():
        before = known.get((tenant_id, feature))
        # Nothing is a document too: the version goes on where a quota comes back.
        document = "" if each.record is None else msgspec.json.encode(each.record).decode()
        version = 0 if before is None else before.version
        if document != ("" if before is None else before.document):
            version += 1
            step.events.append(_event(tenant_id, feature, each.record, version))
        documents.append(document)
        versions.append(version)
    turns = [each.turn for each in worked.values()]
    await step.session.execute(_STORE, {**keys, "documents": documents, "versions": versions, "turns": turns})
    return sum(event.topic == TOPIC for event in step.events)


def _event(tenant_id: UUID, feature: str, record: BalanceRecord | None, version: int) -> OutboxEvent:
    return OutboxEvent(
        topic=TOPIC,
        key=f"{tenant_id}/{feature}",
        type=BALANCE,
        data=record,
        version=version,
        tenant_id=tenant_id,
    )
