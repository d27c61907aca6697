"""Events that the archive alone has, for queries.

The statistics of row groups say which of them can have a tenant's events of a time; only those are fetched, in ranges.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from heapq import merge
from itertools import chain, groupby, islice
from typing import Any, Final
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog
from obstore.exceptions import BaseError

from tenantry import Unavailable
from tenantry.database import Databases
from usage_service.archive.manifest import ArchiveObject, find_lost_day, objects_of_tenant
from usage_service.archive.store import ArchiveStore, MissingObject

_COLUMNS: Final = (
    "identity",
    "event_id",
    "source",
    "type",
    "event_time",
    "received_at",
    "kafka_partition",
    "kafka_offset",
    "catalogue_version",
    "data",
)
_READ: Final = ["tenant_id", *_COLUMNS]
_TRIES: Final = 3
_CHUNK: Final = 1_000
_ALL: Final = sys.maxsize
_NIL: Final = UUID(int=0)

log = structlog.get_logger(__name__)

SHORTEST_STAY: Final = timedelta(days=36)
"""How long a day stays in PostgreSQL after its end, whatever the settings."""


@dataclass(frozen=True, slots=True)
class ArchivedEvent:
    """An event as a row of `usage_event` has it."""

    identity: UUID
    event_id: str
    source: str
    type: str
    event_time: datetime
    received_at: datetime
    kafka_partition: int
    kafka_offset: int
    catalogue_version: int
    data: str


class ArchiveIncomplete(Unavailable):
    """Objects that the manifest names are not in the store, or cannot be read there now."""

    type = "archive-incomplete"
    title = "Archived events cannot be read"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events: of a tenant, in [first, last), of a type if one is said, received before an instant if one is said,
    behind a place in the order of (time, identity), and how many at most.
    """

    tenant_id: UUID
    first: datetime
    last: datetime
    after: tuple[datetime, UUID]
    limit: int
    event_type: str | None = None
    received_before: datetime | None = None


class ArchiveReader:
    """Reads the archive for the requests of one process."""

    def __init__(self, databases: Databases, store: ArchiveStore) -> None:
        self._databases = databases
        self._store = store

    async def events_of(self, wanted: Wanted) -> list[ArchivedEvent]:
        """The first events of a tenant that PostgreSQL has no longer, in the order of (time, identity).

        To be asked after PostgreSQL: a day that is dropped in between is then in both answers, which `merged` sees, and
        not in neither. Raises `ArchiveIncomplete`.
        """
        for _ in range(_TRIES):
            try:
                objects = await self._objects(wanted)
                with _readable():
                    return await self._read(objects, wanted)
            except MissingObject:
                continue  # it was rewritten without another tenant's rows, or has expired, since the manifest was read
        raise ArchiveIncomplete("The archive does not have what its manifest names.")

    async def stream(
        self,
        tenant_id: UUID,
        event_type: str,
        ranges: Sequence[tuple[datetime, datetime]],
        *,
        received_before: datetime | None,
        ordered: bool,
    ) -> AsyncIterator[ArchivedEvent]:
        """The events of a type inside the ranges that PostgreSQL has no longer; `ordered` by time, receipt and place.

        The ranges are in order and do not overlap. To be asked in the transaction in which PostgreSQL was: until it
        ends no day can be dropped, so no event is in both answers or in neither. Raises as `events_of`.
        """
        if not ranges:
            return
        objects = await self._objects(Wanted(tenant_id, ranges[0][0], ranges[-1][1], (ranges[0][0], _NIL), _ALL))
        for first, last in _joined_ranges(ranges) if objects else ():
            wanted = Wanted(tenant_id, first, last, (first, _NIL), _ALL, event_type, received_before)
            inside = [each for each in objects if _utc_day(first) <= each.day <= _utc_day(last)]
            for _, of_day in groupby(inside, key=lambda each: each.day):
                parts = [self._events(each, wanted) for each in of_day]
                events = merge(*map(_settle_ties, parts), key=_order) if ordered else chain(*parts)
                try:
                    while chunk := await _next_chunk(events):
                        for event in chunk:
                            yield event
                except MissingObject as error:
                    raise ArchiveIncomplete("The archive does not have what its manifest names.") from error

    async def find_lost_day(
        self, tenant_id: UUID, meters: Sequence[UUID], spans: Sequence[tuple[datetime, datetime]]
    ) -> date | None:
        """A day of the spans of which something was counted, and whose events nobody has any more."""
        recent = datetime.now(UTC) - SHORTEST_STAY
        days = sorted({day for span in spans if span[0] < recent for day in _utc_days(*span)})
        if not days:
            return None
        async with self._databases.system_session() as session:
            return await find_lost_day(await session.connection(), tenant_id, meters, days)

    async def _objects(self, wanted: Wanted) -> Sequence[ArchiveObject]:
        if max(wanted.first, wanted.after[0]) >= datetime.now(UTC) - SHORTEST_STAY:
            return []
        async with self._databases.system_session() as session:
            return await objects_of_tenant(
                await session.connection(), wanted.tenant_id, max(wanted.first, wanted.after[0]), wanted.last
            )

    async def _read(self, objects: Sequence[ArchiveObject], wanted: Wanted) -> list[ArchivedEvent]:
        found: list[ArchivedEvent] = []
        for _, of_day in groupby(objects, key=lambda each: each.day):
            parts = [await asyncio.to_thread(self._read_object, each, wanted) for each in of_day]
            found += islice(merge(*parts, key=_place), wanted.limit - len(found))
            if len(found) == wanted.limit:
                break
        return found

    def _read_object(self, stored: ArchiveObject, wanted: Wanted) -> list[ArchivedEvent]:
        return list(islice(self._events(stored, wanted), wanted.limit))

    def _events(self, stored: ArchiveObject, wanted: Wanted) -> Iterator[ArchivedEvent]:
        """In the order of (time, identity); blocks, and reads a row group when its first event is asked for."""
        with self._store.open_object(stored.path) as file, pq.ParquetFile(pa.PythonFile(file, mode="r")) as parquet:
            for number in range(parquet.num_row_groups):
                if not _may_have(parquet.metadata.row_group(number), wanted):
                    continue
                yield from _matching(parquet.read_row_group(number, columns=_READ), wanted)


def merged(stored: Iterable[Any], archived: Iterable[Any], limit: int) -> list[Any]:
    """Events of PostgreSQL and of the archive in the order of both, each once: `limit` at most.

    They have `event_time` and `identity`; rows and `ArchivedEvent`s do.
    """
    ordered = merge(stored, archived, key=_place)
    return list(islice((next(copies) for _, copies in groupby(ordered, key=_place)), limit))


def _joined_ranges(ranges: Sequence[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Without the seams: the minutes of a day are one range."""
    found: list[tuple[datetime, datetime]] = []
    for first, last in ranges:
        if found and found[-1][1] == first:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return found


def _utc_days(first: datetime, last: datetime) -> Iterator[date]:
    day, final = _utc_day(first), _utc_day(last - timedelta(microseconds=1))
    while day <= final:
        yield day
        day += timedelta(days=1)


def _utc_day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()


def _settle_ties(events: Iterator[ArchivedEvent]) -> Iterator[ArchivedEvent]:
    """Events by time, those of the same time by receipt and place."""
    for _, same in groupby(events, key=lambda event: event.event_time):
        yield from sorted(same, key=_order)


def _order(event: Any) -> tuple[datetime, datetime, int, int]:
    return event.event_time, event.received_at, event.kafka_partition, event.kafka_offset


async def _next_chunk(events: Iterator[ArchivedEvent]) -> list[ArchivedEvent]:
    with _readable():
        return await asyncio.to_thread(lambda: list(islice(events, _CHUNK)))


@contextmanager
def _readable() -> Iterator[None]:
    """Raises `ArchiveIncomplete` where the store cannot be reached, refuses, or has something that is no Parquet."""
    try:
        yield
    except (BaseError, OSError, pa.ArrowException) as error:
        log.warning("archive_away", error=type(error).__name__)
        raise ArchiveIncomplete("The archive cannot be read now; try again.", retry_after=10) from error


async def joined(stored: AsyncIterator[Any], archived: AsyncIterator[Any], *, ordered: bool) -> AsyncIterator[Any]:
    """Events of PostgreSQL and of the archive, of which none is in both; `ordered` as both of them are.

    PostgreSQL is asked first, before anything is asked of the archive.
    """
    if not ordered:
        async for event in stored:
            yield event
        async for event in archived:
            yield event
        return
    ahead = await anext(stored, None)
    async for event in archived:
        while ahead is not None and _order(ahead) < _order(event):
            yield ahead
            ahead = await anext(stored, None)
        yield event
    while ahead is not None:
        yield ahead
        ahead = await anext(stored, None)


def _place(event: Any) -> tuple[datetime, UUID]:
    return event.event_time, event.identity


def _may_have(group: Any, wanted: Wanted) -> bool:
    tenant, time = (group.column(_index(group, name)).statistics for name in ("tenant_id", "event_time"))
    key = str(wanted.tenant_id)
    if tenant is not None and tenant.has_min_max and not tenant.min <= key <= tenant.max:
        return False
    if time is not None and time.has_min_max:
        return bool(time.min < wanted.last and time.max >= max(wanted.first, wanted.after[0]))
    return True


def _index(group: Any, name: str) -> int:
    return next(n for n in range(group.num_columns) if group.column(n).path_in_schema == name)


def _matching(rows: pa.Table, wanted: Wanted) -> Iterator[ArchivedEvent]:
    """In the order of the object, which is that of lists within a tenant."""
    test = pc.and_(
        pc.equal(rows.column("tenant_id"), str(wanted.tenant_id)),
        pc.and_(
            pc.greater_equal(rows.column("event_time"), pa.scalar(max(wanted.first, wanted.after[0]))),
            pc.less(rows.column("event_time"), pa.scalar(wanted.last)),
        ),
    )
    if wanted.event_type is not None:
        test = pc.and_(test, pc.equal(rows.column("type"), wanted.event_type))
    if wanted.received_before is not None:
        test = pc.and_(test, pc.less(rows.column("received_at"), pa.scalar(wanted.received_before)))
    for batch in rows.filter(test).select(_COLUMNS).to_batches(max_chunksize=1_000):
        for row in batch.to_pylist():
            event = ArchivedEvent(**{**row, "identity": UUID(bytes=row["identity"])})
            if _place(event) > wanted.after:
                yield event
