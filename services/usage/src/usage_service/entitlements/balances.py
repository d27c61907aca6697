"""Keeps balances (`usage.balances.v1`), and tells which thresholds they cross (`usage.alerts.v1`).

What may have changed a balance (published rollups, a quota, a grant, a turn of the clock) appends to a queue, in the
transaction that changes it. A step takes a part of the queue and works out, in one transaction, what those quotas are
worth now: from rollups, limits and grants as they are committed, never by adding to the last balance. So a step that is
killed leaves everything as it was, and one that runs twice says the same thing twice. Steps of the same tenant come one
after the other: each reads only once it has the tenant's lock, so the later one knows at least as much.

What cannot be told of one quota, or fails, holds up no other: its balance stays as it was told last, and is tried again
later.

A quota that a tier or a plan gives is stored here, when it is first worked out and whenever its terms have changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import Clock, TenantDirectory
from tenantry.database import Databases
from tenantry.entitlements import Source
from tenantry.events import append_outbox_many
from usage_service.archive.reading import ArchiveReader
from usage_service.domain.entitlements import Course, course_of, follow, values_of
from usage_service.domain.meters import Aggregation, Meter
from usage_service.domain.quotas import Quota, next_turn, period_at
from usage_service.entitlements.alerts import CROSSED, TOLD, Watched, tell_alerts
from usage_service.entitlements.given import NOTHING, InForce, find_in_force
from usage_service.entitlements.measuring import Asked, UsageUnknown, hour_after, measure
from usage_service.entitlements.queue import lock_balances
from usage_service.entitlements.records import BalanceRecord, Told, Worked, find_told, put_off, store_worked
from usage_service.entitlements.repository import Held, StoredQuota, look_into_pool, put_quotas

PUBLISHED = Counter("usage_balances_published_total", "Balances published, an update counts again")
UNKNOWN = Counter("usage_balances_unknown_total", "Times that a balance could not be worked out and was put off")
FAILED = Counter("usage_balances_failed_total", "Times that working a balance out failed, and was put off")

log = structlog.get_logger(__name__)

_TAKEN: Final = 200  # changes in one transaction
_PAUSE_SECONDS: Final = 0.2  # lets changes of the same balance come together
_RETRY: Final = timedelta(minutes=10)  # after which a balance that could not be worked out is tried again
_RETRY_FAILED: Final = timedelta(minutes=1)
_PAST_ALERTS: Final = timedelta(hours=1)  # how long after its end a period still alerts: its last usage is counted late
_AHEAD: Final = timedelta(minutes=10)  # how far in the future an event may be, and so in an hour that is not read yet
_INSTANT: Final = timedelta(microseconds=1)

_TAKE: Final = text(
    """
    DELETE FROM system.balance_change
     WHERE id IN (SELECT id FROM system.balance_change ORDER BY id LIMIT :taken FOR UPDATE SKIP LOCKED)
    RETURNING tenant_id, feature
    """
)
_TAKE_ONE: Final = text(
    """
    DELETE FROM system.balance_change
     WHERE id IN (SELECT id FROM system.balance_change WHERE tenant_id = :tenant AND feature = :feature
                   FOR UPDATE SKIP LOCKED)
    RETURNING tenant_id, feature
    """
)
_NEXT: Final = text(
    """
    SELECT DISTINCT tenant_id, feature
      FROM (SELECT tenant_id, feature FROM system.balance_change ORDER BY id LIMIT :taken) AS next
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


@dataclass(frozen=True, slots=True)
class _Due:
    """A quota whose value is to be worked out; `told` is what it was last."""

    held: Held
    in_force: InForce
    stored: StoredQuota
    versions: Sequence[Meter]
    now: datetime
    told: Told | None

    @property
    def quota(self) -> Quota:
        return self.stored.quota

    @property
    def watched(self) -> datetime:
        """Periods that end later may alert: the one that runs, those that nobody looked at since they ended, and for an
        hour the last one.
        """
        start = period_at(self.quota, self.now).start
        if not self.quota.alerts:
            return start
        last = start if self.now - start >= _PAST_ALERTS else start - _INSTANT
        looked = None if self.told is None else self.told.period_start
        return last if looked is None else min(last, looked)

    @property
    def course(self) -> Course:
        return course_of(self.quota, hour_after(self.now), back_to=self.watched)

    @property
    def turn(self) -> datetime:
        """When it has to be worked out again although nothing is counted meanwhile."""
        turn, hour = next_turn(self.quota, self.now), hour_after(self.now)
        lasts = bool(self.versions) and self.versions[-1].definition.aggregation is Aggregation.TIME_WEIGHTED
        return min(turn, hour) if lasts or hour - self.now <= _AHEAD else turn


class BalanceKeeper:
    """Works off the queue until cancelled; any number of processes may run one."""

    def __init__(self, databases: Databases, directory: TenantDirectory, clock: Clock, archive: ArchiveReader) -> None:
        self._archive = archive
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
        """Works out a part of the queue, in one transaction; returns how many changes it took.

        Where that fails each balance is worked out in a transaction of its own, and those that fail again are put off,
        so that neither another balance nor the watermark waits for them.
        """
        try:
            return await self._step(_TAKE, {"taken": _TAKEN})
        except Exception as error:
            if _is_away(error):
                raise
            log.warning("balances_failed", error=repr(error))
        async with self._databases.system_session() as session:
            found = (await session.execute(_NEXT, {"taken": _TAKEN})).all()
        return sum([await self._step_alone((row.tenant_id, row.feature)) for row in found])

    async def _step_alone(self, held: Held) -> int:
        which = {"tenant": held[0], "feature": held[1]}
        try:
            return await self._step(_TAKE_ONE, which)
        except Exception as error:
            if _is_away(error):
                raise
            log.warning("balance_failed", tenant=str(held[0]), feature=held[1], error=repr(error))
        FAILED.inc()
        async with self._databases.system_session() as session:
            taken = len((await session.execute(_TAKE_ONE, which)).all())
            await put_off(session, {held: self._now(held[0]) + _RETRY_FAILED})
        return taken

    async def _step(self, take: TextClause, which: Mapping[str, Any]) -> int:
        async with self._databases.system_session() as session:
            taken = (await session.execute(take, which)).all()
            keys = {(row.tenant_id, row.feature) for row in taken if not self._directory.is_purged(row.tenant_id)}
            due = {held: self._now(held[0]) for held in sorted(keys)}
            if not due:
                return len(taken)
            await look_into_pool(session)
            await lock_balances(session, list(dict.fromkeys(tenant_id for tenant_id, _ in due)))
            told = await find_told(session, due)
            worked, watched = await self._work_out(session, due, told)
            unknown = [held for held in due if held not in worked]
            await put_off(session, {held: due.pop(held) + _RETRY for held in unknown})
            alerts = await tell_alerts(session, due.items(), watched) if due else []
            balances = await store_worked(session, worked, told)
            await append_outbox_many(session, [*balances, *alerts])
        PUBLISHED.inc(len(balances))
        for alert in alerts:
            TOLD.labels("raised" if alert.type == CROSSED else "cleared").inc()
        return len(taken)

    async def _work_out(
        self, session: AsyncSession, due: Mapping[Held, datetime], told: Mapping[Held, Told]
    ) -> tuple[dict[Held, Worked], list[Watched]]:
        """What every key is worth now, and the values that may alert; nothing of what cannot be told."""
        found = await find_in_force(session, due)
        await put_quotas(
            session, {held: each.quota for held, each in found.in_force.items() if each.quota and each.changed}
        )
        worked = {held: _of_access(held, found.in_force.get(held)) for held in due}
        wanted = [
            _Due(held, each, each.quota, found.meters[each.quota.meter], due[held], told.get(held))
            for held, each in found.in_force.items()
            if each.quota is not None and each.quota.meter
        ]
        asked = [Asked(each.held[0], each.versions, each.quota, each.course, each.now) for each in wanted]
        watched = []
        unknown: set[Held] = set()
        for each, course, usage in zip(wanted, asked, await measure(session, asked, self._archive), strict=True):
            if isinstance(usage, UsageUnknown):
                log.warning("balance_unknown", tenant=str(each.held[0]), feature=each.held[1], reason=usage.detail)
                unknown.add(each.held)
                continue
            values = values_of(each.quota, course.course, follow(course.course, usage))
            watched += [
                Watched(each.held, each.stored, course.aggregation, value, each.now)
                for value in values
                if value.period.end > each.watched
            ]
            record = BalanceRecord.of_value(each.held[0], each.stored, values[-1], config=each.in_force.config)
            worked[each.held] = Worked(record, each.turn)
        for held, each_worked in worked.items():
            change = found.entitled.get(held[0], NOTHING).next_turn(due[held])
            turn = min(filter(None, (each_worked.turn, change)), default=None)
            worked[held] = replace(each_worked, turn=turn)
        UNKNOWN.inc(len(unknown))
        return {held: each for held, each in worked.items() if held not in unknown}, watched

    def _now(self, tenant_id: UUID) -> datetime:
        tenant = self._directory.get(tenant_id)
        return self._clock.now() if tenant is None else tenant.now(self._clock)


def _of_access(held: Held, in_force: InForce | None) -> Worked:
    """Only what was put for the tenant, and what its tier forbids, is told: the rest is known by tier and plan."""
    if in_force is None or in_force.access is None:
        return Worked()
    if in_force.source is not Source.OVERRIDE and not in_force.forbidden:
        return Worked()
    return Worked(BalanceRecord.of_access(held[0], in_force.access))


def _is_away(error: Exception) -> bool:
    """Whether the database, rather than a balance, is why nothing was worked out."""
    return isinstance(error, OSError) or (isinstance(error, DBAPIError) and error.connection_invalidated)
