"""Keeps balances (`usage.balances.v1`), and tells which thresholds they cross (`usage.alerts.v1`).

What may have changed a balance (published rollups, a quota, a grant, a turn of the clock) appends to a queue, in the
transaction that changes it. A step takes a part of the queue and works out, in one transaction, what those quotas are
worth now: from rollups, limits and grants as they are committed, never by adding to the last balance. So a step that is
killed leaves everything as it was, and one that runs twice says the same thing twice. Steps of the same tenant come one
after the other: each reads only once it has the tenant's lock, so the later one knows at least as much.

A quota that a tier or a plan gives is stored here, when it is first worked out and whenever its terms have changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn
from uuid import UUID

import msgspec
from prometheus_client import Counter
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry import Clock, TenantDirectory
from tenantry.database import Databases
from tenantry.entitlements import Source
from tenantry.events import OutboxEvent, append_outbox_many
from usage_service.domain.entitlement_burndown import BurnDown
from usage_service.domain.entitlements import (
    Course,
    Quota,
    Value,
    course_of,
    follow,
    next_turn,
    period_at,
    value_of,
)
from usage_service.domain.instants import rfc3339
from usage_service.domain.quantities import number_text
from usage_service.entitlements.alerts import CROSSED, TOLD, Watched, tell_alerts
from usage_service.entitlements.given import NOTHING, InForce, find_in_force
from usage_service.entitlements.measuring import Asked, measure
from usage_service.entitlements.queue import lock_balances
from usage_service.entitlements.repository import Access, Held, StoredQuota, look_into_pool, put_quotas

TOPIC: Final = "usage.balances.v1"
BALANCE: Final = "usage.balance"

PUBLISHED = Counter("usage_balances_published_total", "Balances published, an update counts again")

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
    RETURNING balance.tenant_id, balance.feature),
queued AS (INSERT INTO system.balance_change (tenant_id, feature) SELECT tenant_id, feature FROM turned)
SELECT count(*) FROM turned
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
    def of_value(cls, tenant_id: UUID, stored: StoredQuota, value: Value, *, config: Any) -> BalanceRecord:
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
            config=config,
        )


@dataclass(frozen=True, slots=True)
class Worked:
    """What was worked out of one feature of a tenant; `record` None where the tenant has nothing of it any more."""

    record: BalanceRecord | None = None
    turn: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Due:
    """A value to be worked out: that of now, or the last one of the period before."""

    held: Held
    in_force: InForce
    now: datetime
    before: bool = False

    @property
    def stored(self) -> StoredQuota:
        if self.in_force.quota is None:
            raise ValueError("only a quota has a value")
        return self.in_force.quota

    @property
    def quota(self) -> Quota:
        return self.stored.quota

    @property
    def course(self) -> Course:
        if self.before:
            return course_of(self.quota, self.start, just_before=True)
        return course_of(self.quota, self.now)

    @property
    def start(self) -> datetime:
        return period_at(self.quota, self.now).start

    def value(self, burnt: BurnDown) -> Value:
        if self.before:
            last = period_at(self.quota, self.start - timedelta(microseconds=1))
            return value_of(self.quota, burnt.closing, last)
        return value_of(self.quota, burnt.carried, period_at(self.quota, self.now))


class BalanceKeeper:
    """Works off the queue until cancelled; any number of processes may run one."""

    def __init__(self, databases: Databases, directory: TenantDirectory, clock: Clock) -> None:
        self._databases = databases
        self._directory = directory
        self._clock = clock

    async def run(self) -> NoReturn:
        while True:
            # At the start of a month the balances of all tenants turn at once.
            turned, taken = await self.queue_turns(), await self.step()
            if turned < _TAKEN and taken < _TAKEN:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def queue_turns(self) -> int:
        """Queues balances whose time has come to change without any usage; returns how many."""
        clocked = {tenant.id: tenant.clock.now for tenant in self._directory if tenant.clock is not None}
        tenants: dict[str, Any] = {"tenants": list(clocked), "taken": _TAKEN}
        async with self._databases.system_session() as session:
            turned: int = (await session.execute(_TURN_BY_TIME, {**tenants, "now": self._clock.now()})).scalar_one()
            if clocked:
                parameters = {**tenants, "nows": list(clocked.values())}
                turned += (await session.execute(_TURN_BY_CLOCKS, parameters)).scalar_one()
        return turned

    async def step(self) -> int:
        """Works out a part of the queue, in one transaction; returns how many changes it took."""
        async with self._databases.system_session() as session:
            taken = (await session.execute(_TAKE, {"taken": _TAKEN})).all()
            keys = {(row.tenant_id, row.feature) for row in taken if not self._directory.is_purged(row.tenant_id)}
            due = {held: self._now(held[0]) for held in sorted(keys)}
            if not due:
                return len(taken)
            await look_into_pool(session)
            await lock_balances(session, list(dict.fromkeys(tenant_id for tenant_id, _ in due)))
            worked, watched = await self._work_out(session, due)
            alerts = await tell_alerts(session, due.items(), watched)
            balances = await _store(session, worked)
            await append_outbox_many(session, [*balances, *alerts])
        PUBLISHED.inc(len(balances))
        for alert in alerts:
            TOLD.labels("raised" if alert.type == CROSSED else "cleared").inc()
        return len(taken)

    async def _work_out(
        self, session: AsyncSession, due: Mapping[Held, datetime]
    ) -> tuple[dict[Held, Worked], list[Watched]]:
        """What every key is worth now, and the values that may alert."""
        found = await find_in_force(session, due)
        await put_quotas(
            session, {held: each.quota for held, each in found.in_force.items() if each.quota and each.changed}
        )
        worked = {held: _of_access(held, found.in_force.get(held)) for held in due}
        quotas = {held: each for held, each in found.in_force.items() if each.quota is not None and each.quota.meter}
        wanted = [each for held, in_force in quotas.items() for each in _values_of(held, in_force, due[held])]
        asked = [Asked(each.held[0], found.meters[each.stored.meter], each.quota, each.course) for each in wanted]
        watched = []
        for each, course, usage in zip(wanted, asked, await measure(session, asked), strict=True):
            value = each.value(follow(course.course, usage))
            watched.append(Watched(each.held, each.quota, course.aggregation, value, each.now))
            if not each.before:
                record = BalanceRecord.of_value(each.held[0], each.stored, value, config=each.in_force.config)
                worked[each.held] = Worked(record, next_turn(each.quota, each.now))
        for held, known in worked.items():
            change = found.entitled.get(held[0], NOTHING).next_turn(due[held])
            worked[held] = replace(known, turn=min(filter(None, (known.turn, change)), default=None))
        return worked, watched

    def _now(self, tenant_id: UUID) -> datetime:
        tenant = self._directory.get(tenant_id)
        return self._clock.now() if tenant is None else tenant.now(self._clock)


def _values_of(held: Held, in_force: InForce, now: datetime) -> Iterator[_Due]:
    current = _Due(held, in_force, now)
    quota = current.quota
    if quota.alerts and quota.since < current.start and now - current.start < _PAST_ALERTS:
        yield replace(current, before=True)
    yield current


def _of_access(held: Held, in_force: InForce | None) -> Worked:
    """Only what was put for the tenant, and what its tier forbids, is told: the rest is known by tier and plan."""
    if in_force is None or in_force.access is None:
        return Worked()
    if in_force.source is not Source.OVERRIDE and not in_force.forbidden:
        return Worked()
    return Worked(BalanceRecord.of_access(held[0], in_force.access))


async def withdraw_balances(connection: AsyncConnection, balances: Sequence[Row[Any]]) -> None:
    """Have balances that are deleted in this transaction withdrawn from the topic."""
    await append_outbox_many(
        connection, [_event(each.tenant_id, each.feature, None, each.version + 1) for each in balances]
    )


async def _store(session: AsyncSession, worked: Mapping[Held, Worked]) -> list[OutboxEvent]:
    """Stores what was worked out; returns the messages of what of it is new."""
    keys = {"tenants": [tenant_id for tenant_id, _ in worked], "features": [feature for _, feature in worked]}
    known = {(row.tenant_id, row.feature): row for row in await session.execute(_KNOWN, keys)}
    documents, versions, events = [], [], []
    for held, each in worked.items():
        before = known.get(held)
        # Nothing is a document too: the version goes on where a quota comes back.
        document = "" if each.record is None else msgspec.json.encode(each.record).decode()
        version = 0 if before is None else before.version
        if document != ("" if before is None else before.document):
            version += 1
            events.append(_event(*held, each.record, version))
        documents.append(document)
        versions.append(version)
    turns = [each.turn for each in worked.values()]
    await session.execute(_STORE, {**keys, "documents": documents, "versions": versions, "turns": turns})
    return events


def _event(tenant_id: UUID, feature: str, record: BalanceRecord | None, version: int) -> OutboxEvent:
    return OutboxEvent(
        topic=TOPIC,
        key=f"{tenant_id}/{feature}",
        type=BALANCE,
        data=record,
        version=version,
        tenant_id=tenant_id,
    )
