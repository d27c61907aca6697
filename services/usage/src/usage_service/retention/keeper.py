"""The work of retention: days are archived and dropped when they are due, and what has expired is deleted.

Any number of processes may run a keeper: each day is one process's at a time.
"""

from __future__ import annotations

import asyncio
from datetime import date, datetime, timedelta
from typing import Final, NoReturn

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tenantry import Clock
from usage_service.archive.archivist import ArchiveDiffers, Archivist
from usage_service.archive.manifest import expired_objects, remove_objects
from usage_service.erasure.repository import count_open
from usage_service.retention.days import (
    ClaimedDay,
    DayBusy,
    claim_day,
    closed_day,
    discover_days,
    lock_day,
    look_later,
    oldest_overdue,
    set_archived,
    set_dropped,
)
from usage_service.retention.letters import delete_old_letters
from usage_service.retention.policy import DayState, Step, Terms, next_step
from usage_service.retention.rollups import EndedDay, Ending, end_next

DROPPED = Counter("usage_days_dropped_total", "Days of raw events that left PostgreSQL, archived and verified")
HELD = Counter(
    "usage_days_held_total", "Times that a day was not dropped because its archive was not what it should be"
)
EXPIRED = Counter("usage_expired_total", "What was deleted because its time was over", ["what"])
OVERDUE = Gauge("usage_retention_overdue_seconds", "How long the day that has waited longest was due")

_POLL_SECONDS: Final = 60.0
_BUSY: Final = timedelta(seconds=10)
_RETRY: Final = timedelta(minutes=10)
_SWEEP: Final = timedelta(days=1)
_LETTERS_AT_ONCE: Final = 5_000

log = structlog.get_logger(__name__)


class RetentionKeeper:
    """Keeps the terms. `migrator_url` is of the role that may become the owner, who alone can drop a day."""

    def __init__(
        self, engine: AsyncEngine, archivist: Archivist, terms: Terms, clock: Clock, *, migrator_url: str
    ) -> None:
        """`clock` is the real time: a tenant's clock ends nothing earlier."""
        self._engine = engine
        self._archivist = archivist
        self._terms = terms
        self._clock = clock
        self._migrator_url = migrator_url
        self._swept_at: datetime | None = None

    async def run(self) -> NoReturn:
        """Works until cancelled; a server or a store that is away is waited for."""
        while True:
            try:
                await self.sweep()
            except Exception as error:  # noqa: BLE001 (whatever is away, or wrong with one thing, ends a try)
                log.warning("retention_waits", error=repr(error))
            await asyncio.sleep(_POLL_SECONDS)

    async def sweep(self) -> None:
        """Does everything that is due."""
        async with self._engine.begin() as connection:
            await discover_days(connection, self._terms.archive_after)
        while await self.turn():
            pass
        await self._expire_objects()
        await self._expire_letters()
        await self._end_rollups()
        await self._sweep_archive()
        async with self._engine.connect() as connection:
            now = self._clock.now()
            OVERDUE.set((now - (await oldest_overdue(connection, now) or now)).total_seconds())

    async def turn(self) -> bool:
        """Does what is due for the day that has waited longest; whether there was one.

        What stands in its way is logged and noted with the day, and other days go first for a while.
        """
        now = self._clock.now()
        async with self._engine.connect() as claim:
            claimed = await claim_day(claim, now)
            if claimed is None:
                return False
            try:
                await self._advance(claim, claimed, now)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a day is not the end of the others
                await claim.rollback()
                await self._hold(claimed, error, now)
        return True

    async def _advance(self, claim: AsyncConnection, claimed: ClaimedDay, now: datetime) -> None:
        day = claimed.day
        if not claimed.stored:
            await set_dropped(claim, day, now)
            await claim.commit()
            return
        archived = await self._archivist.archive(claim, day, now)
        state = DayState(day, archived=True, newest_received_at=archived.newest_received_at)
        step, due = next_step(state, self._terms)
        drop = step is Step.DROP and due <= now and archived.complete
        if drop and not archived.written:
            await self._drop(claim, day, now)
            return
        # A day that is due comes back at once, and then has nothing to write.
        look_at = now if drop else due if due > now else now + _RETRY
        await set_archived(claim, day, now=now, newest=archived.newest_received_at, look_at=look_at)
        await claim.commit()
        await self._archivist.delete(archived.replaced)
        log.info("usage_day_archived", day=str(day), events=archived.written)

    async def _drop(self, claim: AsyncConnection, day: date, now: datetime) -> None:
        """The objects are read back first and compared last, when nobody can write to the day any more."""
        objects, damaged = await self._archivist.verify(claim, day)
        if damaged:
            # PostgreSQL has all that was in them. Once the manifest names them no longer, they are written again.
            HELD.inc()
            await remove_objects(claim, [each.id for each in damaged])
            await claim.commit()
            await self._archivist.delete(damaged)
            return
        async with closed_day(self._migrator_url, day) as closed:
            if not await self._archivist.matches(day, objects):
                raise DayBusy(f"{day} has events that are not archived yet")
            await closed.drop()
        await set_dropped(claim, day, now)
        await claim.commit()
        DROPPED.inc()
        log.info("usage_day_dropped", day=str(day), objects=len(objects))

    async def _hold(self, claimed: ClaimedDay, error: Exception, now: datetime) -> None:
        busy = isinstance(error, DayBusy)
        problem = str(error) if isinstance(error, ArchiveDiffers | DayBusy) else type(error).__name__
        if busy:
            log.info("usage_day_busy", day=str(claimed.day), reason=problem)
        else:
            HELD.inc()
            log.error("usage_day_held", day=str(claimed.day), reason=problem, error=repr(error))
        async with self._engine.begin() as connection:
            await look_later(connection, claimed.day, now + (_BUSY if busy else _RETRY), problem)

    async def _expire_objects(self) -> None:
        """Nothing while a person is erased, of whose events rollups may have to be made anew."""
        async with self._engine.connect() as connection:
            until = self._clock.now() - self._terms.archive
            while not await count_open(connection) and (expired := await expired_objects(connection, until)):
                for day in sorted({each.day for each in expired}):
                    await lock_day(connection, day)
                    gone = [each for each in expired if each.day == day]
                    await remove_objects(connection, [each.id for each in gone])
                    await connection.commit()
                    await self._archivist.delete(gone)
                EXPIRED.labels("archive object").inc(len(expired))

    async def _sweep_archive(self) -> None:
        """Once a day; a day that is being worked on is swept by whoever does."""
        now = self._clock.now()
        if self._swept_at is None or now - self._swept_at >= _SWEEP:
            try:
                await self._archivist.sweep_all()
            except DBAPIError as error:
                log.info("archive_not_swept", error=type(error).__name__)
            else:
                self._swept_at = now

    async def _end_rollups(self) -> None:
        """A day in a transaction: its hours become one row, or its days go."""
        for ending, term in ((Ending.HOURS, self._terms.hours), (Ending.DAYS, self._terms.days)):
            now = self._clock.now()
            ended: EndedDay | None = None
            while True:
                async with self._engine.begin() as connection:
                    ended = await end_next(connection, ending, now - term, now)
                if ended is None:
                    break
                EXPIRED.labels("rollup").inc(ended.rows)
                log.info("usage_rollups_ended", day=str(ended.day), what=ending.name.lower(), rows=ended.rows)

    async def _expire_letters(self) -> None:
        until = self._clock.now() - self._terms.dead_letters
        deleted = _LETTERS_AT_ONCE
        while deleted == _LETTERS_AT_ONCE:
            async with self._engine.begin() as connection:
                deleted = await delete_old_letters(connection, until, limit=_LETTERS_AT_ONCE)
            EXPIRED.labels("dead letter").inc(deleted)
