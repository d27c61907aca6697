"""Works off erasures, a piece at a time, each piece and what is noted of it in one transaction.

    waiting   until everything that was received before the erasure was asked for is counted; then tokens end
    days      a day of PostgreSQL at a time: raw events and what was counted of them
    archive   an object at a time, once no archivist can write what it read before
    again     what was counted, once more, where a backfill was under way: it may have read the archive before
    letters   dead letters by pages, then corrections
    done      the values are forgotten

Any number of processes may run a worker: the row of an erasure is locked while a piece of it is worked on. Killed at
any point, the piece is done again or was done; no row is counted twice in the report.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Final, NoReturn
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tenantry import Clock
from usage_service.archive.archivist import Archivist
from usage_service.archive.manifest import check_that_none_archives, find_object, ids_of_tenant
from usage_service.archive.store import ArchiveStore
from usage_service.domain.erasing import Erasing
from usage_service.erasure.archived import ARCHIVE, count_in_object, erase_rows
from usage_service.erasure.letters import CORRECTIONS, LETTERS, erase_corrections, erase_letters
from usage_service.erasure.repository import (
    Claimed,
    add_found,
    claim_erasure,
    count_open,
    find_days,
    find_meters,
    is_counted,
    look_later,
    plan_days,
    set_cursor,
    set_day_done,
    set_done,
    set_step,
    was_backfilled,
)
from usage_service.erasure.stored import NO_BACKFILL, PATIENCE, StoredDay
from usage_service.metering.recounting import Archived
from usage_service.tokens.repository import erase_tokens

ERASED = Counter("usage_erasures_total", "Erasures of one person that are done")
OPEN = Gauge("usage_erasures_open", "Erasures of one person that are asked for and not done")

_POLL_SECONDS: Final = 1.0
_NOT_COUNTED: Final = timedelta(seconds=1)
_RETRY: Final = timedelta(seconds=10)
_NIL: Final = UUID(int=0)
TOKENS: Final = "token"

log = structlog.get_logger(__name__)


class ErasureWorker:
    """Does what was asked for. `engine` is the system role's."""

    def __init__(
        self, engine: AsyncEngine, store: ArchiveStore, archivist: Archivist, archived: Archived, clock: Clock
    ) -> None:
        self._engine = engine
        self._store = store
        self._archivist = archivist
        self._archived = archived
        self._clock = clock

    async def run(self) -> NoReturn:
        """Works until cancelled; a server or a store that is away is waited for."""
        while True:
            try:
                if await self.turn():
                    continue
                async with self._engine.connect() as connection:
                    OPEN.set(await count_open(connection))
            except Exception as error:  # noqa: BLE001 (whatever is away ends a try)
                log.warning("erasures_wait", error=type(error).__name__)
            await asyncio.sleep(_POLL_SECONDS)

    async def turn(self) -> bool:
        """Does a piece of the erasure that has waited longest; whether one was due."""
        now = self._clock.now()
        async with self._engine.connect() as claim:
            erasure = await claim_erasure(claim, now)
            if erasure is None:
                return False
            try:
                await self._advance(claim, erasure)
                await claim.commit()
            except Exception as error:  # noqa: BLE001 (what is wrong with one is not the end of the others)
                await claim.rollback()
                # A message of PostgreSQL, or of anything that reads events, may quote the value.
                log.warning("erasure_waits", erasure=str(erasure.id), step=erasure.step, error=type(error).__name__)
                await look_later(claim, erasure, now + _RETRY, type(error).__name__)
                await claim.commit()
        return True

    async def _advance(self, claim: AsyncConnection, erasure: Claimed) -> None:
        erasing = Erasing.of(erasure.pseudonyms, erasure.paths, attributes=erasure.attributes)
        match erasure.step:
            case "waiting":
                await self._wait(claim, erasure)
            case "days" | "again":
                await self._erase_day(claim, erasure, erasing)
            case "archive":
                await self._erase_object(claim, erasure, erasing)
            case _:
                await self._erase_letters(claim, erasure, erasing)

    async def _wait(self, claim: AsyncConnection, erasure: Claimed) -> None:
        if await is_counted(claim, erasure):
            await add_found(claim, erasure, {TOKENS: await erase_tokens(claim, erasure.tenant_id, erasure.pseudonyms)})
            await plan_days(claim, erasure, "days", await find_days(claim, erasure.tenant_id))
        else:
            await look_later(claim, erasure, self._clock.now() + _NOT_COUNTED, None)

    async def _erase_day(self, claim: AsyncConnection, erasure: Claimed, erasing: Erasing) -> None:
        if not erasure.days and erasure.step == "again":
            await set_step(claim, erasure, "letters")
            return
        if not erasure.days:
            # What was archived before its day changed has the values, and what begins to be archived now has not.
            async with self._engine.begin() as connection:
                await check_that_none_archives(connection)
            await set_step(claim, erasure, "archive")
            return
        day = erasure.days[0]
        stored = StoredDay(claim, erasing, erasure.tenant_id, day, await find_meters(claim), self._archived)
        again = erasure.step == "again"
        await add_found(claim, erasure, await (stored.count_again() if again else stored.erase()))
        await set_day_done(claim, erasure, day)

    async def _erase_object(self, claim: AsyncConnection, erasure: Claimed, erasing: Erasing) -> None:
        """An object that is put in another's place is newer than all, and is looked at in its turn: it has none."""
        found = await ids_of_tenant(claim, erasure.tenant_id, limit=1, after=erasure.cursor or _NIL)
        if not found:
            await self._archivist.sweep_all()
            if not await was_backfilled(claim, erasure):
                await set_step(claim, erasure, "letters")
                return
            # What a backfill has begun before this ends before it; what it begins after it finds no value any more.
            for statement in (PATIENCE, NO_BACKFILL):
                await claim.exec_driver_sql(statement)
            await plan_days(claim, erasure, "again", await find_days(claim, erasure.tenant_id))
            return
        known = await find_object(claim, found[0])
        rows = 0 if known is None else await count_in_object(self._store, known[0], erasure.tenant_id, erasing)
        if rows:
            change = partial(erase_rows, tenant_id=erasure.tenant_id, erasing=erasing)
            await self._archivist.rewrite(
                found[0], change, also=partial(add_found, erasure=erasure, found={ARCHIVE: rows})
            )
        await set_cursor(claim, erasure, found[0])

    async def _erase_letters(self, claim: AsyncConnection, erasure: Claimed, erasing: Erasing) -> None:
        changed, last = await erase_letters(claim, erasing, erasure.tenant_id, after=erasure.cursor)
        await add_found(claim, erasure, {LETTERS: changed})
        if last is not None:
            await set_cursor(claim, erasure, last)
            return
        await add_found(claim, erasure, {CORRECTIONS: await erase_corrections(claim, erasing, erasure.tenant_id)})
        await set_done(claim, erasure)
        ERASED.inc()
        log.info("erasure_done", erasure=str(erasure.id), tenant=str(erasure.tenant_id))
