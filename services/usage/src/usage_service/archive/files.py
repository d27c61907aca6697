"""Parquet files on their way to the store and back: written in row groups of bounded size, and summed up again.

The files have no names, so that a process that is killed leaves no events of tenants behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import IO, Final, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from usage_service.archive.layout import DICTIONARIES, SCHEMA, SORTED_BY, TenantSpan, Totals, spans_of, totals_of

GROUP_ROWS: Final = 50_000
GROUP_BYTES: Final = 32 << 20
"""Of a row group before it is encoded, at most, but for one batch: what a writer holds in memory."""
PART_ROWS: Final = 1_000_000
"""Of one object: what a purge rewrites to take one tenant out."""

_PIECE: Final = 1 << 20
_READ_FOR_TOTALS: Final = ["digest", "kafka_offset", "data"]


@dataclass(slots=True)
class Part:
    """A finished file and what is in it."""

    file: IO[bytes]
    totals: Totals = field(default_factory=Totals)
    tenants: dict[str, TenantSpan] = field(default_factory=dict)
    last_received_at: datetime | None = None
    sha256: bytes = b""
    bytes: int = 0

    @property
    def first_time(self) -> datetime:
        """Of a part that has rows."""
        return min(span.first_time for span in self.tenants.values())

    @property
    def last_time(self) -> datetime:
        """Of a part that has rows; an event has it."""
        return max(span.last_time for span in self.tenants.values())


class PartWriter:
    """Writes one file from batches in the order of `SORTED_BY`. Every call may block, and belongs into a thread."""

    def __init__(self, file: IO[bytes]) -> None:
        self.part = Part(file)
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._writer = pq.ParquetWriter(
            file,
            SCHEMA,
            compression="zstd",
            use_dictionary=DICTIONARIES,
            write_statistics=True,
            write_page_index=True,
            sorting_columns=[pq.SortingColumn(SCHEMA.get_field_index(name)) for name in SORTED_BY],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Rows after those that were added before."""
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        self._pending_bytes += batch.nbytes
        if self._pending_rows >= GROUP_ROWS or self._pending_bytes >= GROUP_BYTES:
            self._write_group()

    def add_table(self, table: pa.Table) -> None:
        """The same of a table."""
        for batch in table.to_batches():
            self.add(batch)

    @property
    def rows(self) -> int:
        """How many were added."""
        return self.part.totals.rows + self._pending_rows

    def finish(self) -> Part:
        """Closes the file; the part with its digest."""
        self._write_group()
        self._writer.close()
        self.part.file.flush()
        self.part.file.seek(0)
        digest = hashlib.sha256()
        while piece := self.part.file.read(_PIECE):
            digest.update(piece)
        self.part.sha256 = digest.digest()
        self.part.bytes = self.part.file.tell()
        return self.part

    def _write_group(self) -> None:
        if not self._pending_rows:
            return
        group = pa.Table.from_batches(self._pending, schema=SCHEMA)
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        self._writer.write_table(group, row_group_size=group.num_rows)
        self.part.totals += totals_of(group)
        received = pc.max(group.column("received_at")).as_py()
        self.part.last_received_at = max(received, self.part.last_received_at or received)
        for tenant, span in spans_of(group).items():
            known = self.part.tenants.setdefault(tenant, span)
            if known is not span:
                known.rows += span.rows
                known.first_time = min(known.first_time, span.first_time)
                known.last_time = max(known.last_time, span.last_time)


def read_totals(file: IO[bytes]) -> Totals:
    """What a file's rows sum up to, read group by group. Raises pyarrow's errors for what is no such file."""
    totals = Totals()
    for group in groups_of(file, _READ_FOR_TOTALS):
        totals += totals_of(group)
    return totals


def groups_of(file: IO[bytes], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups, one at a time, with columns in the order of the file."""
    with pq.ParquetFile(file, memory_map=False) as parquet:
        for number in range(parquet.num_row_groups):
            yield parquet.read_row_group(number, columns=columns)
