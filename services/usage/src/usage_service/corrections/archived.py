"""Corrections of events that the archive alone has.

The worker looks for events in PostgreSQL only, so such a correction waits. No event of a day that is gone can come any
more: it is looked for in the archive, once, and is either cancelled there and in the rollups, or missing. One that
cannot be looked for, because an object of the archive is away, holds up no other: it is tried again a minute later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from time import monotonic
from typing import Final, NoReturn
from uuid import UUID

import asyncpg
import structlog
from prometheus_client import Counter
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from usage_service.archive.reading import ArchivedEvent, ArchiveReader, Wanted
from usage_service.domain.instants import microseconds
from usage_service.domain.rollups import At
from usage_service.driver import driver_of
from usage_service.metering.cancelled import cancelled_on
from usage_service.metering.cancelling import StoredEvent, cancel_events
from usage_service.metering.catalogue import load_versions
from usage_service.metering.corrections import CORRECTIONS
from usage_service.metering.recounting import Raw
from usage_service.metering.rollups import queue_changes
from usage_service.metering.rows import decode_data

FAILURES: Final = Counter(
    "usage_archived_correction_failures_total", "Corrections of archived events that failed and are tried again"
)

_POLL_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 60.0
_PAGE: Final = 5_000
_HOUR: Final = timedelta(hours=1)
_NIL: Final = UUID(int=0)

# A backfill reads archived hours without a lock that a correction would wait for: one waits for a step of the other.
# While a person is erased an event may still be in the archive under the value, and in rollups under the pseudonym.
_NEXT = text(
    """
    SELECT correction.tenant_id, correction.identity, correction.id, correction.asked_day
      FROM pool.correction JOIN system.gone_day ON gone_day.day = correction.asked_day
     WHERE correction.day IS NULL AND correction.missing_at IS NULL AND correction.id <> ALL(CAST(:failed AS uuid[]))
       AND NOT EXISTS (SELECT FROM pool.erasure
                        WHERE erasure.tenant_id = correction.tenant_id AND erasure.step IN ('days', 'archive', 'again'))
     ORDER BY correction.received_at LIMIT 1 FOR UPDATE OF correction SKIP LOCKED
    """
)
# A backfill of a meter that is put meanwhile waits for whoever has read the catalogue (`backfilling.barrier`).
_LOCK_CATALOGUE = text("SELECT FROM system.meter_catalogue")
_NO_BACKFILL = text("SELECT FROM system.meter_backfill WHERE state <> 'finished' FOR UPDATE")
_FOUND = text(
    """
    UPDATE pool.correction SET day = asked_day, applied_at = clock_timestamp()
     WHERE tenant_id = :tenant_id AND identity = :identity AND id = :id
    """
)
_MISSING = text(
    """
    UPDATE pool.correction SET missing_at = clock_timestamp()
     WHERE tenant_id = :tenant_id AND identity = :identity AND id = :id
    """
)

log = structlog.get_logger(__name__)


class ArchivedCorrections:
    """Applies such corrections, one after the other. `engine` is the system role's; any number of processes may."""

    def __init__(self, engine: AsyncEngine, archive: ArchiveReader) -> None:
        self._engine = engine
        self._archive = archive
        self._failed: dict[UUID, float] = {}

    async def run(self) -> NoReturn:
        """Works until cancelled. Raises what the database raises when it is away."""
        while True:
            if not await self.turn():
                await asyncio.sleep(_POLL_SECONDS)

    async def turn(self) -> bool:
        """Tries the one that has waited longest, but for those that have just failed; whether there was one."""
        now = monotonic()
        self._failed = {failed: again for failed, again in self._failed.items() if now < again}
        correction = None
        try:
            async with self._engine.begin() as connection:
                await connection.execute(_LOCK_CATALOGUE)
                correction = (await connection.execute(_NEXT, {"failed": list(self._failed)})).one_or_none()
                if correction is None:
                    return False
                outcome = await self._apply(connection, correction)
        except Exception as error:
            if correction is None:
                raise
            self._failed[correction.id] = now + _AGAIN_SECONDS
            FAILURES.inc()
            log.warning("usage_archived_correction_failed", day=str(correction.asked_day), error=repr(error))
            return True
        CORRECTIONS.labels(outcome).inc()
        log.info("usage_archived_correction", outcome=outcome, day=str(correction.asked_day))
        return True

    async def _apply(self, connection: AsyncConnection, correction: Row[tuple[UUID, UUID, UUID, date]]) -> str:
        """Cancels the event that the correction names, in the caller's transaction; what became of the correction."""
        await connection.execute(_NO_BACKFILL)
        named = {name: getattr(correction, name) for name in ("tenant_id", "identity", "id")}
        event = await self._find(correction)
        if event is None:
            await connection.execute(_MISSING, named)
            return "missing"
        await connection.execute(_FOUND, named)
        await self._cancel(connection, correction.tenant_id, event)
        return "applied"

    async def events(
        self, connection: asyncpg.Connection, tenant: UUID, kind: str, opening: datetime
    ) -> AsyncIterator[Raw]:
        """The archived events of an hour that count, as `recount` asks for them."""
        cancelled = await cancelled_on(connection, tenant, opening.date())
        span = (opening, opening + _HOUR)
        async for event in self._archive.stream(tenant, kind, [span], received_before=None, ordered=True):
            if event.identity not in cancelled:
                yield Raw(_at(event), event.catalogue_version, event.data)

    async def _find(self, correction: Row[tuple[UUID, UUID, UUID, date]]) -> ArchivedEvent | None:
        first = datetime.combine(correction.asked_day, time(), UTC)
        last = first + timedelta(days=1)
        after = (first, _NIL)
        while True:
            page = await self._archive.events_of(Wanted(correction.tenant_id, first, last, after, _PAGE))
            found = next((event for event in page if event.identity == correction.identity), None)
            if found is not None or len(page) < _PAGE:
                return found
            after = (page[-1].event_time, page[-1].identity)

    async def _cancel(self, connection: AsyncConnection, tenant: UUID, event: ArchivedEvent) -> None:
        driver = await driver_of(connection)
        at = _at(event)
        stored = StoredEvent(
            tenant.bytes,
            event.type,
            at.time,
            at.received,
            at.partition,
            at.offset,
            event.catalogue_version,
            decode_data(event.data),
        )
        changed = await cancel_events(driver, [stored], await load_versions(connection, {event.type}), self)
        if changed:
            await queue_changes(driver, changed)


def _at(event: ArchivedEvent) -> At:
    return At(
        microseconds(event.event_time), microseconds(event.received_at), event.kafka_partition, event.kafka_offset
    )
