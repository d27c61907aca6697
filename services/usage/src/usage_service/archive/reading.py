"""Events that the archive alone has, for queries.

The statistics of row groups say which of them can have a tenant's events of a time; only those are fetched, in ranges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from itertools import groupby, islice
from typing import Any, Final
from uuid import UUID

import pyarrow as pa  # type: ignore[import-untyped] # ships no types
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from tenantry import Unavailable
from tenantry.database import Databases
from usage_service.archive.manifest import ArchiveObject, objects_of_tenant
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
        not in neither. Raises `Unavailable` where the objects are not there, and the store's errors.
        """
        for _ in range(_TRIES):
            async with self._databases.system_session() as session:
                objects = await objects_of_tenant(
                    await session.connection(), wanted.tenant_id, max(wanted.first, wanted.after[0]), wanted.last
                )
            try:
                return await self._read(objects, wanted)
            except MissingObject:
                continue  # it was rewritten without another tenant's rows, or has expired, since the manifest was read
        raise Unavailable("The archive does not have what its manifest names.")

    async def _read(self, objects: Sequence[ArchiveObject], wanted: Wanted) -> list[ArchivedEvent]:
        found: list[ArchivedEvent] = []
        for _, of_day in groupby(objects, key=lambda each: each.day):
            parts = [await asyncio.to_thread(self._read_object, each, wanted) for each in of_day]
            found += islice(merge(*parts, key=_place), wanted.limit - len(found))
            if len(found) == wanted.limit:
                break
        return found

    def _read_object(self, stored: ArchiveObject, wanted: Wanted) -> list[ArchivedEvent]:
        found: list[ArchivedEvent] = []
        with self._store.open_object(stored.path) as file, pq.ParquetFile(pa.PythonFile(file, mode="r")) as parquet:
            for number in range(parquet.num_row_groups):
                if not _may_have(parquet.metadata.row_group(number), wanted):
                    continue
                rows = parquet.read_row_group(number, columns=_READ)
                found += islice(_matching(rows, wanted), wanted.limit - len(found))
                if len(found) == wanted.limit:
                    break
        return found


def merged(stored: Iterable[Any], archived: Iterable[Any], limit: int) -> list[Any]:
    """Events of PostgreSQL and of the archive in the order of both, each once: `limit` at most.

    They have `event_time` and `identity`; rows and `ArchivedEvent`s do.
    """
    ordered = merge(stored, archived, key=_place)
    return list(islice((next(copies) for _, copies in groupby(ordered, key=_place)), limit))


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
