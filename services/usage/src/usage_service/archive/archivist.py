"""Archiving a day: what PostgreSQL has and the archive has not is written, read back, and only then in the manifest.

A day is archived in slices of receipt time, so that late events make a further object and none is written twice. A
slice counts as archived while PostgreSQL's own sums of it are those of its objects. Where PostgreSQL has more rows
(an event that was parked, a broker whose clock went back), the slice is written again as a whole; where it has fewer,
or others, a purge or an erasure is under way, and the day waits.

Killed at any point: an object that is not in the manifest is deleted by whoever comes next; the manifest's rows, and
the removal of those they replace, are one transaction; a replaced object is deleted after it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import IO, Final
from uuid import UUID

import asyncpg
import pyarrow as pa
import structlog
from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tenantry import uuid7
from usage_service.archive.files import PART_ROWS, Part, PartWriter, groups_of, read_totals
from usage_service.archive.layout import ROOT, SCHEMA, Totals, day_of, folder, object_path, record_batch
from usage_service.archive.manifest import (
    ArchiveObject,
    add_object,
    find_object,
    known_ids,
    remove_objects,
    stored_objects,
    try_lock_day,
)
from usage_service.archive.store import ArchiveStore, MissingObject
from usage_service.driver import driver_of

ARCHIVED = Counter("usage_archived_events_total", "Events written to the archive, those of a repeated slice again")

SETTLE: Final = timedelta(minutes=5)
"""How long after its receipt an event is taken to be stored, parked or not; a later one has its slice repeated."""

_FETCH_ROWS: Final = 1_000

log = structlog.get_logger(__name__)

_WATERMARK = text("SELECT min(received_until) FROM system.partition_progress")
_SUMS = text(
    """
    SELECT width_bucket(received_at, CAST(:untils AS timestamptz[])) AS slice, count(*) AS rows,
           bit_xor(digest) AS digest, sum(kafka_offset) AS offsets, sum(octet_length(data))::bigint AS data_bytes,
           max(received_at) AS newest
      FROM pool.usage_event WHERE day = :day GROUP BY 1
    """
)
_TYPED: Final = {"tenant_id": "tenant_id::text", "identity": "uuid_send(identity)"}
_ROWS: Final = f"""
SELECT {", ".join(_TYPED.get(name, name) for name in SCHEMA.names)} FROM pool.usage_event
 WHERE day = $1 AND ($2::timestamptz IS NULL OR received_at >= $2) AND received_at < $3
 ORDER BY pool.usage_event.tenant_id, event_time, pool.usage_event.identity
"""  # noqa: S608 - names of our own


class ArchiveDiffers(Exception):
    """The archive and PostgreSQL say different things of a day, and not because events came in."""


@dataclass(slots=True)
class Archived:
    """What became of a day. `replaced` are objects that are to be deleted once the caller has committed."""

    newest_received_at: datetime | None
    complete: bool
    """Whether every row of the day is in the archive."""
    written: int
    replaced: list[ArchiveObject]


class Archivist:
    """Writes days into the archive. The caller holds the lock of the day's row, in the transaction of `claim`."""

    def __init__(
        self,
        engine: AsyncEngine,
        store: ArchiveStore,
        *,
        part_rows: int = PART_ROWS,
        new_id: Callable[[], UUID] = uuid7,
    ) -> None:
        """`engine` is the system role's."""
        self._engine = engine
        self._store = store
        self._part_rows = part_rows
        self._new_id = new_id

    async def archive(self, claim: AsyncConnection, day: date, now: datetime) -> Archived:
        """Writes what the archive does not have of a day. The caller commits, then calls `delete`.

        Raises `ArchiveDiffers`, and the errors of PostgreSQL and of the store, after which nothing has changed but
        objects without a row in the manifest.
        """
        await self.sweep(claim, day)
        objects = await stored_objects(claim, day)
        untils = sorted({each.received_until for each in objects})
        since = untils[-1] if untils else None
        replaced: list[ArchiveObject] = []
        written = 0
        async with self._snapshot() as reading:
            until = await _settled(reading, now)
            later = [until] if since is None or until > since else []
            sums, newest = await _sums(reading, day, [*untils, *later])
            # A slice begins where the one before it ends, also where there was another between them.
            for number, (begin, slice_until) in enumerate(pairwise([None, *untils])):
                assert slice_until is not None
                mine = [each for each in objects if each.received_until == slice_until]
                if _is_archived(day, mine, sums[number]):
                    continue
                replaced += mine
                await remove_objects(claim, [each.id for each in mine])
                written += await self._write(claim, reading, day, begin, slice_until, sums[number])
            if later and sums[len(untils)].rows:
                written += await self._write(claim, reading, day, since, until, sums[len(untils)])
        ARCHIVED.inc(written)
        return Archived(newest, not sums[-1].rows, written, replaced)

    async def verify(self, claim: AsyncConnection, day: date) -> tuple[list[ArchiveObject], list[ArchiveObject]]:
        """Reads every object of a day that PostgreSQL still has; all of them, and those of slices with a bad one.

        Raises the errors of the store, but for a missing object, which is a bad one.
        """
        objects = await stored_objects(claim, day)
        bad: set[datetime] = set()
        for each in objects:
            try:
                await self._read_back(each)
            except (ArchiveDiffers, MissingObject) as error:
                log.warning("archive_object_damaged", path=each.path, reason=str(error))
                bad.add(each.received_until)
        return objects, [each for each in objects if each.received_until in bad]

    async def matches(self, day: date, objects: Sequence[ArchiveObject]) -> bool:
        """Whether PostgreSQL has exactly what these objects have. The caller keeps writers out."""
        async with self._snapshot() as reading:
            sums, _ = await _sums(reading, day, [])
        return sums[0] == sum((each.totals for each in objects), Totals())

    async def delete(self, objects: Sequence[ArchiveObject]) -> None:
        """Deletes objects that the manifest no longer names. May be repeated."""
        for each in objects:
            await self._store.delete(each.path)

    async def sweep(self, claim: AsyncConnection, day: date) -> int:
        """Deletes what lies in a day's folder and is not in the manifest; how many objects."""
        known = await known_ids(claim, day)
        paths = {object_path(day, each) for each in known}
        lost = [path async for path in self._store.paths(folder(day)) if path not in paths]
        for path in lost:
            log.info("archive_object_swept", path=path)
            await self._store.delete(path)
        return len(lost)

    async def sweep_all(self) -> int:
        """Deletes what lies in any day's folder and is not in the manifest; how many objects.

        Fails at once where one of those days is being worked on, with PostgreSQL's error.
        """
        found: dict[date, set[str]] = {}
        async for path in self._store.paths(ROOT):
            if (day := day_of(path)) is not None:
                found.setdefault(day, set()).add(path)
        swept = 0
        async with self._engine.connect() as claim:
            for day, paths in sorted(found.items()):
                if paths - {object_path(day, each) for each in await known_ids(claim, day)}:
                    await try_lock_day(claim, day)
                    swept += await self.sweep(claim, day)
                await claim.commit()
        return swept

    async def rewrite(
        self,
        object_id: UUID,
        change: Callable[[pa.Table], pa.Table],
        *,
        also: Callable[[AsyncConnection], Awaitable[None]] | None = None,
    ) -> None:
        """Puts another object in an object's place, with its rows as `change` makes them of those of a row group.

        What is left must be in the same order. `also` is done in the transaction that puts the new object in the
        manifest. The old one is deleted after it, or by `sweep_all`. Fails at once where the day is being worked on.
        """
        async with self._engine.connect() as claim:
            known = await find_object(claim, object_id)
            if known is None:
                return
            await try_lock_day(claim, known[0].day)
            known = await find_object(claim, object_id)
            if known is None:
                return
            old, released_at = known
            await self.sweep(claim, old.day)
            with tempfile.TemporaryFile() as file:
                part = await self._changed(old, file, change)
                if part.totals.rows:
                    new = ArchiveObject(
                        self._new_id(), old.day, old.received_from, old.received_until, part.totals, part.sha256
                    )
                    await self._store.put(new.path, part.file)
                    await self._read_back(new)
                    await add_object(claim, new, part, released_at=released_at)
            await remove_objects(claim, [old.id])
            if also is not None:
                await also(claim)
            await claim.commit()
        await self.delete([old])

    async def _changed(self, old: ArchiveObject, file: IO[bytes], change: Callable[[pa.Table], pa.Table]) -> Part:
        with tempfile.TemporaryFile() as copy:
            if await self._store.fetch(old.path, copy) != old.sha256:
                raise ArchiveDiffers(f"{old.path}: its bytes are not those that were written")
            return await asyncio.to_thread(_write_changed, copy, file, change)

    async def _write(
        self,
        claim: AsyncConnection,
        reading: AsyncConnection,
        day: date,
        since: datetime | None,
        until: datetime,
        expected: Totals,
    ) -> int:
        """Writes the events that were received in [since, until) and their rows of the manifest; how many events."""
        written = Totals()
        async for part in self._parts(await driver_of(reading), day, since, until):
            stored = ArchiveObject(self._new_id(), day, since, until, part.totals, part.sha256)
            await self._store.put(stored.path, part.file)
            await self._read_back(stored)
            await add_object(claim, stored, part)
            written += part.totals
        if written != expected:
            raise ArchiveDiffers(f"{day}: {written.rows} rows were written and {expected.rows} are stored")
        return written.rows

    async def _parts(
        self, driver: asyncpg.Connection, day: date, since: datetime | None, until: datetime
    ) -> AsyncIterator[Part]:
        """Files with the rows of a slice, each gone when the next one is asked for."""
        cursor = await driver.cursor(_ROWS, day, since, until)
        rows = await cursor.fetch(_FETCH_ROWS)
        while rows:
            with tempfile.TemporaryFile() as file:
                with await asyncio.to_thread(PartWriter, file) as writer:
                    while rows and writer.rows < self._part_rows:
                        await asyncio.to_thread(_add, writer, rows)
                        rows = await cursor.fetch(_FETCH_ROWS)
                    part = await asyncio.to_thread(writer.finish)
                yield part

    async def _read_back(self, stored: ArchiveObject) -> None:
        with tempfile.TemporaryFile() as copy:
            sha256 = await self._store.fetch(stored.path, copy)
            if sha256 != stored.sha256:
                raise ArchiveDiffers(f"{stored.path}: its bytes are not those that were written")
            if await asyncio.to_thread(read_totals, copy) != stored.totals:
                raise ArchiveDiffers(f"{stored.path}: its rows are not those that were written")

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[AsyncConnection]:
        """One state of the database for all statements. It ends before the day is dropped, which it would hold up."""
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection


async def _settled(reading: AsyncConnection, now: datetime) -> datetime:
    watermark: datetime | None = await reading.scalar(_WATERMARK)
    settled = now - SETTLE
    return settled if watermark is None else min(settled, watermark)


async def _sums(
    reading: AsyncConnection, day: date, thresholds: Sequence[datetime]
) -> tuple[list[Totals], datetime | None]:
    """What is stored by receipt: before the first threshold, between each two, and after the last; the newest receipt.

    The thresholds rise.
    """
    sums = [Totals()] * (len(thresholds) + 1)
    newest: datetime | None = None
    for row in await reading.execute(_SUMS, {"day": day, "untils": list(thresholds)}):
        sums[row.slice] = Totals(row.rows, row.digest, int(row.offsets), row.data_bytes)
        newest = row.newest if newest is None else max(newest, row.newest)
    return sums, newest


def _is_archived(day: date, mine: Sequence[ArchiveObject], theirs: Totals) -> bool:
    """Whether a slice is as PostgreSQL has it; False: it has more rows. Raises `ArchiveDiffers`."""
    archived = sum((each.totals for each in mine), Totals())
    if archived == theirs:
        return True
    if archived.rows < theirs.rows:
        return False
    raise ArchiveDiffers(f"{day}: {archived.rows} rows are archived, and {theirs.rows}, or others, are stored")


def _write_changed(old: IO[bytes], new: IO[bytes], change: Callable[[pa.Table], pa.Table]) -> Part:
    with PartWriter(new) as writer:
        for group in groups_of(old):
            writer.add_table(change(group))
        return writer.finish()


def _add(writer: PartWriter, rows: Sequence[asyncpg.Record]) -> None:
    writer.add(record_batch([tuple(row) for row in rows]))
