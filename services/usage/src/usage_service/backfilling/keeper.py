"""Does what `system.meter_backfill` says, in steps that are a transaction each, while events flow.

Any number of processes may run a keeper: the lock on its row makes each backfill one process's at a time, and what a
step has done is noted in the transaction that does it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, NoReturn

import asyncpg
import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from usage_service.archive.reading import ArchiveReader
from usage_service.backfilling.barrier import open_batches
from usage_service.backfilling.chunks import recount_scope, take_off_the_list
from usage_service.backfilling.jobs import (
    Job,
    JobKey,
    State,
    begin_job,
    claim_job,
    enter,
    finish_day,
    go_on,
    unfinished_jobs,
)
from usage_service.backfilling.scopes import CHUNK_EVENTS, next_scope
from usage_service.backfilling.settling import Window, full_windows, scope_of
from usage_service.domain.meters import MAX_GROUPS, CompiledMeter
from usage_service.driver import driver_of
from usage_service.meters.repository import METER_COLUMNS, meter_of, next_catalogue_version

EVENTS: Final = Counter("usage_backfilled_events_total", "Events counted for a meter that was made after them")
UNFINISHED: Final = Gauge("usage_backfills_unfinished", "Backfills that wait or run")
FAILURES: Final = Counter("usage_backfill_failures_total", "Steps of backfills that failed and are tried again")

_POLL_SECONDS: Final = 1.0
_METER: Final = text(f"SELECT {METER_COLUMNS} FROM system.meter WHERE id = :id")  # noqa: S608 (our own columns)

log = structlog.get_logger(__name__)


class BackfillKeeper:
    """Works on all backfills in turns. `engine` is the system role's."""

    def __init__(
        self,
        engine: AsyncEngine,
        archive: ArchiveReader,
        *,
        chunk_events: int = CHUNK_EVENTS,
        max_groups: int = MAX_GROUPS,
    ) -> None:
        self._engine = engine
        self._archive = archive
        self._chunk_events = chunk_events
        self._max_groups = max_groups
        self._awaited: dict[tuple[JobKey, State], set[str]] = {}
        self._full: dict[JobKey, deque[Window]] = {}

    async def run(self) -> NoReturn:
        """Works until cancelled. Raises what the database raises when it is away."""
        while True:
            if not await self.turn():
                await asyncio.sleep(_POLL_SECONDS)

    async def turn(self) -> bool:
        """One step of every backfill; whether any was done. One that fails is logged and holds up no other."""
        async with self._engine.connect() as connection:
            keys = await unfinished_jobs(connection)
        UNFINISHED.set(len(keys))
        self._awaited = {place: batches for place, batches in self._awaited.items() if place[0] in keys}
        self._full = {key: windows for key, windows in self._full.items() if key in keys}
        stepped = [await self._try(key) for key in keys]
        return any(stepped)

    async def _try(self, key: JobKey) -> bool:
        try:
            return await self._step(key)
        except Exception as error:  # noqa: BLE001 (whatever is wrong with one backfill, or away, ends a try)
            FAILURES.inc()
            log.warning("backfill_step_failed", meter=str(key.meter), error=repr(error))
            return False

    async def _step(self, key: JobKey) -> bool:
        async with self._engine.begin() as connection:
            job = await claim_job(connection, key)
            if job is None or (job.state is not State.RUNNING and not await self._batches_have_ended(connection, job)):
                return False
            if job.state is State.WAITING:
                await begin_job(connection, job)
                log.info("backfill_begins", meter=str(job.key.meter))
                return True
            driver = await driver_of(connection)
            meter = CompiledMeter.of(meter_of((await connection.execute(_METER, {"id": job.key.meter})).one()))
            if job.state is State.SETTLING:
                await self._settle(connection, driver, job, meter)
            elif job.day is not None:
                await self._count(connection, driver, job, meter)
            elif meter.readers:
                await next_catalogue_version(connection)
                await enter(connection, job, State.SETTLING)
            else:
                await self._finish(connection, job)
        if settled := self._full.get(key):
            settled.popleft()  # now that it is committed
        return True

    async def _batches_have_ended(self, connection: AsyncConnection, job: Job) -> bool:
        """Whether no batch is under way that was when the backfill came into its state."""
        now_open = await open_batches(connection)
        awaited = self._awaited.setdefault((job.key, job.state), now_open)
        awaited &= now_open
        return not awaited

    async def _count(
        self, connection: AsyncConnection, driver: asyncpg.Connection, job: Job, meter: CompiledMeter
    ) -> None:
        scope = await next_scope(driver, job, events=self._chunk_events)
        if scope is None:
            await finish_day(connection, job)
            return
        recount = await recount_scope(driver, self._archive, job, meter, scope, max_groups=self._max_groups)
        await take_off_the_list(driver, recount)
        await go_on(connection, job, *scope.next_place, events=recount.counted)
        EVENTS.inc(recount.counted)

    async def _settle(
        self, connection: AsyncConnection, driver: asyncpg.Connection, job: Job, meter: CompiledMeter
    ) -> None:
        """One full hour a step. They are listed anew by whoever goes on after a kill: to repeat one changes nothing."""
        windows = self._full.get(job.key)
        if windows is None:
            windows = self._full[job.key] = deque(await full_windows(driver, job, meter))
        if not windows:
            await self._finish(connection, job)
            return
        scope = await scope_of(driver, windows[0])
        await recount_scope(driver, self._archive, job, meter, scope, max_groups=self._max_groups)

    async def _finish(self, connection: AsyncConnection, job: Job) -> None:
        await enter(connection, job, State.FINISHED)
        log.info("backfill_finished", meter=str(job.key.meter))
