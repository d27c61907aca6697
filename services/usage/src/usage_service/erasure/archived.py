"""Taking a person's values out of objects of the archive."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from typing import Final
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from usage_service.archive.files import groups_of
from usage_service.archive.layout import SCHEMA
from usage_service.archive.manifest import ArchiveObject
from usage_service.archive.store import ArchiveStore, MissingObject
from usage_service.domain.erasing import Erasing

ARCHIVE: Final = "archive.usage_event"

_READ: Final = ["tenant_id", "source", "event_id", "data"]


async def count_in_object(store: ArchiveStore, stored: ArchiveObject, tenant_id: UUID, erasing: Erasing) -> int:
    """How many events of a tenant in an object have a value; none where the object was replaced a moment ago."""
    with tempfile.TemporaryFile() as copy:
        try:
            await store.fetch(stored.path, copy)
        except MissingObject:
            return 0
        groups: Iterator[pa.Table] = groups_of(copy, _READ)
        found = 0
        while (group := await asyncio.to_thread(next, groups, None)) is not None:
            found += await asyncio.to_thread(lambda rows: len(_changed(rows, tenant_id, erasing)), group)
        return found


def erase_rows(rows: pa.Table, tenant_id: UUID, erasing: Erasing) -> pa.Table:
    """The same rows, those of the tenant without its values: what PostgreSQL makes of them too, to the byte."""
    changed = _changed(rows, tenant_id, erasing)
    if not changed:
        return rows
    for place, name in enumerate(("source", "event_id", "data")):
        values = rows.column(name).to_pylist()
        for number, texts in changed.items():
            values[number] = texts[place]
        index = SCHEMA.get_field_index(name)
        rows = rows.set_column(index, SCHEMA.field(index), pa.array(values, type=pa.string()))
    return rows


def _changed(rows: pa.Table, tenant_id: UUID, erasing: Erasing) -> dict[int, tuple[str, str, str]]:
    """Source, id and data of the rows that change, as they will be, by number."""
    numbers = pc.indices_nonzero(pc.equal(rows.column("tenant_id"), str(tenant_id)))
    own = rows.select(["source", "event_id", "data"]).take(numbers)
    texts = zip(*(own.column(name).to_pylist() for name in own.column_names), strict=True)
    changed = {}
    for number, (source, event_id, data) in zip(numbers.to_pylist(), texts, strict=True):
        erased = (erasing.attribute(source), erasing.attribute(event_id), erasing.data(data).text)
        if erased != (source, event_id, data):
            changed[number] = erased
    return changed
