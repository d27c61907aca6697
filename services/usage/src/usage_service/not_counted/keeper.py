"""Tells on `usage.alerts.v1` what of a tenant's events is not counted: once for each kind, reason and UTC day.

Nothing on the way of an event knows of it. Dead letters and types without a meter are rows that are written anyway, and
are looked through every few seconds; a full window is noted by the relay that publishes its `__other__`. What is found
is noted first, in a row whose key is what is told once, and told in another transaction, which numbers it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, Literal, NoReturn
from uuid import UUID, uuid5

import msgspec
from prometheus_client import Counter
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry import Clock, TenantDirectory
from tenantry.database import Databases
from tenantry.events import OutboxEvent, append_outbox_many
from usage_service.entitlements.alerts import TOPIC, WITH_LAST_NUMBER, forget_alerts
from usage_service.entitlements.queue import lock_balances

NOT_COUNTED: Final = "usage.not-counted"

TOLD: Final = Counter("usage_not_counted_alerts_total", "Tenants' days on which something was not counted", ["kind"])

_TAKEN: Final = 500
_PAUSE_SECONDS: Final = 15.0
_MAX_TYPES: Final = 20  # of a tenant and day: whoever sends a new type with every event is told of the first ones
_OVERLAP: Final = timedelta(minutes=5)  # longer than a transaction that writes letters may take
_WHOLE_EVERY: Final = timedelta(minutes=15)
_KEPT: Final = timedelta(days=400)
_LINEAGE: Final = UUID("0d3a1c0e-2f4e-5b5c-8a52-7f0e4f7f9b21")
_NO_TENANT: Final = UUID(int=0)

_NOTE_LETTERS: Final = text(
    """
    INSERT INTO pool.not_counted (tenant_id, day, kind, reason, count)
    SELECT letter.tenant_id, CAST(letter.created_at AT TIME ZONE 'UTC' AS date), letter.kind,
           COALESCE(meter.slug, ''), count(*)
      FROM pool.dead_letter AS letter LEFT JOIN system.meter AS meter ON meter.id = letter.meter_id
     WHERE letter.id >= :since AND letter.tenant_id <> :nobody
     GROUP BY 1, 2, 3, 4
    ON CONFLICT DO NOTHING
    """
)
_NOTE_TYPES: Final = text(
    """
    INSERT INTO pool.not_counted (tenant_id, day, kind, reason, count)
    SELECT found.tenant_id, :day, 'unmatched', found.type, found.count
      FROM (SELECT seen.*, row_number() OVER (PARTITION BY seen.tenant_id ORDER BY first_received_at, type) AS number
              FROM pool.unmatched_type AS seen
             WHERE last_received_at >= :start AND count > 0
               AND NOT EXISTS (SELECT FROM pool.not_counted AS noted
                                WHERE (noted.tenant_id, noted.day, noted.kind, noted.reason)
                                    = (seen.tenant_id, :day, 'unmatched', seen.type))) AS found
     WHERE found.number <= :types - (SELECT count(*) FROM pool.not_counted AS noted
                                      WHERE (noted.tenant_id, noted.day, noted.kind)
                                          = (found.tenant_id, :day, 'unmatched'))
    ON CONFLICT DO NOTHING
    """
)
_NOTE_FULL: Final = text(
    """
    INSERT INTO pool.not_counted (tenant_id, day, kind, reason, count)
    SELECT tenant_id, CAST(clock_timestamp() AT TIME ZONE 'UTC' AS date), 'overflow', meter, max(count)
      FROM unnest(CAST(:tenants AS uuid[]), CAST(:meters AS text[]), CAST(:counts AS bigint[]))
           AS found (tenant_id, meter, count)
     GROUP BY 1, 4
    ON CONFLICT DO NOTHING
    """
)
_UNTOLD: Final = text(
    """
    SELECT tenant_id, day, kind, reason, count FROM pool.not_counted WHERE number IS NULL
     ORDER BY day, tenant_id LIMIT :taken FOR UPDATE SKIP LOCKED
    """
)
_FORGET: Final = text("DELETE FROM pool.not_counted WHERE tenant_id = ANY(CAST(:tenants AS uuid[]))")
_TELL: Final = text(
    f"""
    UPDATE pool.not_counted AS noted SET number = found.number
      FROM (SELECT told.*, last.number + row_number() OVER (PARTITION BY tenant_id ORDER BY day, kind, reason) AS number
              FROM unnest(CAST(:tenants AS uuid[]), CAST(:days AS date[]), CAST(:kinds AS text[]),
                          CAST(:reasons AS text[])) AS told (tenant_id, day, kind, reason)
             {WITH_LAST_NUMBER}) AS found
     WHERE (noted.tenant_id, noted.day, noted.kind, noted.reason)
         = (found.tenant_id, found.day, found.kind, found.reason)
    RETURNING noted.tenant_id, noted.day, noted.kind, noted.reason, noted.count, noted.number
    """  # noqa: S608 (our own text)
)
# The greatest number of a tenant stays, for those that follow.
_FORGET_OLD: Final = text(
    """
    DELETE FROM pool.not_counted AS old
     WHERE day < :before AND EXISTS (SELECT FROM pool.not_counted AS later
                                      WHERE later.tenant_id = old.tenant_id AND later.number > old.number)
    """
)


class NotCountedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record of `usage.alerts.v1`. `kind` is one of dead letters, `unmatched` or `overflow`; `reason` is
    the meter, the type that no meter knows, or empty. `count` is how many there were when it was told.
    """

    id: str
    sequence: int = 1
    state: Literal["raised"] = "raised"
    tenant_id: str
    kind: str
    reason: str
    day: str
    count: str


class NotCountedKeeper:
    """Notes and tells until cancelled; any number of processes may run one."""

    def __init__(self, databases: Databases, directory: TenantDirectory, clock: Clock) -> None:
        self._databases = databases
        self._directory = directory
        self._clock = clock
        self._whole_at: datetime | None = None

    async def run(self) -> NoReturn:
        while True:
            await self.note()
            while await self.tell() == _TAKEN:
                pass
            await asyncio.sleep(_PAUSE_SECONDS)

    async def note(self) -> None:
        """Notes what is new; all of yesterday and today at first, and now and then."""
        now = self._clock.now().astimezone(UTC)
        start = datetime.combine(now.date(), time(), tzinfo=UTC)
        whole = self._whole_at is None or now - self._whole_at >= _WHOLE_EVERY
        since = start - timedelta(days=1) if whole else now - _OVERLAP
        async with self._databases.system_session() as session:
            await session.execute(_NOTE_LETTERS, {"since": _first_id(since), "nobody": _NO_TENANT})
            await session.execute(_NOTE_TYPES, {"day": now.date(), "start": start, "types": _MAX_TYPES})
            if whole:
                await session.execute(_FORGET_OLD, {"before": now.date() - _KEPT})
                await forget_alerts(session, now - _KEPT)
        if whole:
            self._whole_at = now

    async def tell(self) -> int:
        """Tells what was noted, in one transaction; returns how much of it."""
        async with self._databases.system_session() as session:
            noted = (await session.execute(_UNTOLD, {"taken": _TAKEN})).all()
            purged = [row.tenant_id for row in noted if self._directory.is_purged(row.tenant_id)]
            if purged:
                await session.execute(_FORGET, {"tenants": purged})
            told = [row for row in noted if row.tenant_id not in purged]
            if told:
                await lock_balances(session, sorted({row.tenant_id for row in told}))
                await append_outbox_many(session, [_event(row) for row in await session.execute(_TELL, _keys(told))])
        for row in told:
            TOLD.labels(row.kind).inc()
        return len(noted)


async def note_full_windows(connection: AsyncConnection, full: Collection[tuple[UUID, str, int]]) -> None:
    """Notes meters of tenants of which a window has more groups than it may have. May be repeated."""
    tenants, meters, counts = zip(*full, strict=True)
    await connection.execute(_NOTE_FULL, {"tenants": tenants, "meters": meters, "counts": counts})


def _first_id(moment: datetime) -> UUID:
    """Lower than the ids of all letters since an instant, which begin with their milliseconds (UUIDv7)."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def _keys(rows: Collection[Row[Any]]) -> dict[str, Any]:
    return {
        "tenants": [row.tenant_id for row in rows],
        "days": [row.day for row in rows],
        "kinds": [row.kind for row in rows],
        "reasons": [row.reason for row in rows],
    }


def _event(row: Row[Any]) -> OutboxEvent:
    day: date = row.day
    record = NotCountedRecord(
        id=str(uuid5(_LINEAGE, f"{row.tenant_id}/{day}/{row.kind}/{row.reason}")),
        tenant_id=str(row.tenant_id),
        kind=row.kind,
        reason=row.reason,
        day=day.isoformat(),
        count=str(row.count),
    )
    return OutboxEvent(
        topic=TOPIC,
        key=str(row.tenant_id),
        type=NOT_COUNTED,
        data=record,
        version=row.number,
        tenant_id=row.tenant_id,
    )
