"""Drives invoice runs through their states, from wherever a crash has left them.

A run is driven by one worker at a time: the one that holds its advisory lock, on a connection of its own. That is for
economy only. Should the lock's connection break while the worker lives, every step is still safe with two of them:
states move by compare-and-set, periods are claimed with SKIP LOCKED, and `billed_period` lets one of them bill.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, assert_never

import httpx
import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from billing_service.domain.rating import ZERO
from billing_service.domain.runs import RunState
from billing_service.invoicing import repository, run_repository
from billing_service.invoicing.cuts import CutSource
from billing_service.invoicing.drafting import draft_chunk
from billing_service.invoicing.events import publish_finalized
from billing_service.invoicing.models import Run
from billing_service.invoicing.planning import plan_items
from billing_service.usage.repository import abandoned_cuts, cut_is_complete, release_cut
from tenantry import Clock, TenantDirectory, TenantryError
from tenantry.database import Databases

log = structlog.get_logger(__name__)

INVOICES = Counter("billing_invoices_total", "Final invoices written")
OPEN_RUNS = Gauge("billing_invoice_runs_open", "Invoice runs that are not over")

# The first half of an advisory lock ("invo"); the second is a hash of the run. A collision makes a run wait.
_LOCK_CLASS: Final = 0x696E766F
_TRY_LOCK: Final = text("SELECT pg_try_advisory_lock(:lock_class, hashtext(CAST(:run_id AS text)))")
_UNLOCK: Final = text("SELECT pg_advisory_unlock(:lock_class, hashtext(CAST(:run_id AS text)))")

_POLL_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ABANDONED_AFTER_SECONDS: Final = 3600.0


class InvoiceRunner:
    """Works on open runs until cancelled; any number of processes may have one.

    `freshen` returns once the directory holds everything that was published before the call: a run that is requested
    right after a test clock was advanced must see the new time.
    """

    def __init__(
        self,
        databases: Databases,
        directory: TenantDirectory,
        cuts: CutSource,
        clock: Clock,
        *,
        freshen: Callable[[], Awaitable[None]],
        chunk: int = 500,
        write_off: Decimal = ZERO,
        cut_timeout: timedelta = timedelta(minutes=15),
    ) -> None:
        self._databases = databases
        self._directory = directory
        self._cuts = cuts
        self._clock = clock
        self._freshen = freshen
        self._chunk = chunk
        self._write_off = write_off
        self._cut_timeout = cut_timeout
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled. PostgreSQL and usage being away is waited out."""
        failures = 0
        while True:
            try:
                async with self._listening() as locks:
                    while True:
                        self._wake.clear()
                        await self._work(locks)
                        failures = 0
                        await self._wait(_POLL_SECONDS)
            except (DBAPIError, OSError, TimeoutError) as error:
                delay = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                log.warning("invoice runs wait for the database", error=str(error), seconds=delay)
                await asyncio.sleep(delay)

    async def _work(self, locks: AsyncConnection) -> None:
        """One pass over the open runs; a run that waits for something outside is left to the next pass."""
        async with self._databases.system_session() as session:
            runs = await run_repository.open_runs(session)
            for cut_id in await abandoned_cuts(session, _ABANDONED_AFTER_SECONDS):
                await release_cut(session, cut_id)
        OPEN_RUNS.set(len(runs))
        for run in runs:
            key = {"lock_class": _LOCK_CLASS, "run_id": str(run.id)}
            if not await locks.scalar(_TRY_LOCK, key):
                continue
            try:
                await self._drive(run)
            except (OperationalError, InterfaceError, OSError, TimeoutError):
                raise
            except Exception as error:
                # One run that cannot go on must stop neither the others nor this process; it is tried again.
                log.exception("invoice run failed", run_id=str(run.id), state=run.state)
                async with self._databases.system_session() as session:
                    await run_repository.set_error(session, run.id, f"{type(error).__name__} while {run.state}")
            finally:
                await locks.execute(_UNLOCK, key)

    async def _drive(self, run: Run) -> None:
        current: Run | None = run
        while current is not None and await self._step(current):
            async with self._databases.system_session() as session:
                current = await run_repository.find(session, run.id)

    async def _step(self, run: Run) -> bool:
        """Do what `run.state` asks for; False where the run is over or waits for something outside."""
        match run.state:
            case RunState.REQUESTED:
                return await self._plan(run)
            case RunState.CUTTING:
                return await self._cut(run)
            case RunState.RATING:
                return await self._rate(run)
            case RunState.NUMBERING:
                return await self._number(run)
            case RunState.FINALIZING:
                return await self._finalize(run)
            case RunState.DONE | RunState.FAILED:
                return False
            case _:
                assert_never(run.state)

    async def _plan(self, run: Run) -> bool:
        await self._freshen()
        async with self._databases.system_session() as session:
            items = await plan_items(session, run, self._directory, self._clock)
            # Moved first: a worker that looked before another one planned must not plan it again.
            if not await run_repository.move(session, run, RunState.CUTTING if items else RunState.DONE):
                return True
            await run_repository.replace_items(session, run.id, items)
        log.info("invoice run planned", run_id=str(run.id), periods=len(items))
        return True

    async def _cut(self, run: Run) -> bool:
        if run.cut_id is None:
            # A crash between the answer and the commit leaves a cut that nobody uses: it is released by age.
            try:
                cut_id = await self._cuts.request_cut()
            except (httpx.HTTPError, TenantryError, ValueError, KeyError) as error:
                log.warning("usage gives no cut", run_id=str(run.id), error=str(error))
                async with self._databases.system_session() as session:
                    await run_repository.set_error(session, run.id, f"usage gives no cut: {error}")
                return False
            async with self._databases.system_session() as session:
                await run_repository.set_cut(session, run.id, cut_id)
            return True
        async with self._databases.system_session() as session:
            if await cut_is_complete(session, run.cut_id):
                return await run_repository.move(session, run, RunState.RATING)
            requested = run.cut_requested_at or run.created_at
            if datetime.now(UTC) - requested > self._cut_timeout:
                await release_cut(session, run.cut_id)
                reason = f"the cut {run.cut_id} was not read in all partitions within {self._cut_timeout}"
                return await run_repository.move(session, run, RunState.FAILED, reason)
        return False

    async def _rate(self, run: Run) -> bool:
        if run.cut_id is None:
            raise RuntimeError(f"run {run.id} is rating without a cut")
        rated = 1
        while rated:
            async with self._databases.system_session() as session:
                rated = await draft_chunk(session, run, run.cut_id, self._chunk, write_off=self._write_off)
        async with self._databases.system_session() as session:
            if await run_repository.has_pending(session, run.id):
                return False
            if not run.dry_run:
                return await run_repository.move(session, run, RunState.NUMBERING)
            await release_cut(session, run.cut_id)
            return await run_repository.move(session, run, RunState.DONE)

    async def _number(self, run: Run) -> bool:
        async with self._databases.system_session() as session:
            await repository.number_drafts(session, run.id)
            return await run_repository.move(session, run, RunState.FINALIZING)

    async def _finalize(self, run: Run) -> bool:
        while True:
            async with self._databases.system_session() as session:
                invoices = await repository.finalize_drafts(session, run.id, self._chunk)
                if not invoices:
                    break
                await publish_finalized(session, invoices)
                await run_repository.mark_invoiced(session, run.id, [invoice.id for invoice in invoices])
            INVOICES.inc(len(invoices))
        async with self._databases.system_session() as session:
            if await repository.has_drafts(session, run.id):
                return False
            if run.cut_id is not None:
                await release_cut(session, run.cut_id)
            return await run_repository.move(session, run, RunState.DONE)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[AsyncConnection]:
        """A connection for the locks that also hears of new runs and of cuts that were read."""
        async with self._databases.system.connect() as connection:
            autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
            driver = (await autocommit.get_raw_connection()).driver_connection
            if driver is None:
                raise RuntimeError("a fresh connection has no driver connection")
            await driver.add_listener(run_repository.CHANNEL, self._notified)
            try:
                yield autocommit
            finally:
                # The locks and the listener end with it: it must not go back to the pool.
                await autocommit.invalidate()

    def _notified(self, *_: object) -> None:
        self._wake.set()

    async def _wait(self, seconds: float) -> None:
        # Not wait_for(), which before Python 3.12 loses a cancellation that comes together with the notification.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
