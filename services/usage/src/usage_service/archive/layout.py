"""What an object of the archive looks like: its name, its schema, and what is summed up of its rows.

    usage-events/v1/day=2026-11-21/<uuid>.parquet

The columns are those of `pool.usage_event`, with the same names; rows are sorted by tenant, time and identity, so the
statistics of row groups find one tenant's rows. Whatever changes a reader's view of a row gets another `v`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import reduce
from operator import xor
from typing import Any, Final
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

ROOT: Final = "usage-events/v1"
_SUFFIX: Final = ".parquet"

_TIMESTAMP = pa.timestamp("us", tz="UTC")
SCHEMA: Final = pa.schema(
    [
        pa.field("tenant_id", pa.string(), nullable=False),
        pa.field("identity", pa.binary(16), nullable=False),
        pa.field("event_time", _TIMESTAMP, nullable=False),
        pa.field("received_at", _TIMESTAMP, nullable=False),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("kafka_offset", pa.int64(), nullable=False),
        pa.field("digest", pa.int64(), nullable=False),
        pa.field("catalogue_version", pa.int64(), nullable=False),
        pa.field("day", pa.date32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("data", pa.string(), nullable=False),
    ]
)
DICTIONARIES: Final = ["tenant_id", "source", "type"]
SORTED_BY: Final = ("tenant_id", "event_time", "identity")


@dataclass(frozen=True, slots=True)
class Totals:
    """What rows sum up to, in any order; PostgreSQL says the same of the rows that it has.

    `digest` is the exclusive or of the digests of type, time and data, `offsets` the sum of places in Kafka, and
    `data_bytes` the length of all data in UTF-8.
    """

    rows: int = 0
    digest: int = 0
    offsets: int = 0
    data_bytes: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.rows + other.rows,
            self.digest ^ other.digest,
            self.offsets + other.offsets,
            self.data_bytes + other.data_bytes,
        )


@dataclass(slots=True)
class TenantSpan:
    """One tenant's rows in an object, and their times, the last one included."""

    rows: int
    first_time: datetime
    last_time: datetime


def folder(day: date) -> str:
    """The folder of a day, without a slash at the end."""
    return f"{ROOT}/day={day.isoformat()}"


def object_path(day: date, object_id: UUID) -> str:
    """The name of an object; no two objects ever have the same."""
    return f"{folder(day)}/{object_id}{_SUFFIX}"


def day_of(path: str) -> date | None:
    """The day of an object by its name; None where that is no name of ours."""
    parts = path.removeprefix(f"{ROOT}/day=").split("/")
    try:
        return date.fromisoformat(parts[0]) if len(parts) == 2 else None
    except ValueError:
        return None


def record_batch(rows: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    """Rows whose values are in the order of `SCHEMA`."""
    columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else ([] for _ in SCHEMA)
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=SCHEMA)


def totals_of(table: pa.Table | pa.RecordBatch) -> Totals:
    """The sums of rows that have at least the columns digest, kafka_offset and data."""
    return Totals(
        rows=table.num_rows,
        digest=reduce(xor, table.column("digest").to_pylist(), 0),
        offsets=sum(table.column("kafka_offset").to_pylist()),
        data_bytes=pc.sum(pc.binary_length(table.column("data")), min_count=0).as_py(),
    )


def spans_of(table: pa.Table | pa.RecordBatch) -> dict[str, TenantSpan]:
    """Rows and times by tenant."""
    grouped = pa.table({name: table.column(name) for name in ("tenant_id", "event_time")}).group_by("tenant_id")
    found = grouped.aggregate([("event_time", "count"), ("event_time", "min"), ("event_time", "max")])
    return {
        each["tenant_id"]: TenantSpan(each["event_time_count"], each["event_time_min"], each["event_time_max"])
        for each in found.to_pylist()
    }
