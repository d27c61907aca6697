"""COPY in PostgreSQL's binary format, written by hand for the two tables that take most of the rows.

asyncpg encodes a record field by field through codecs; one `struct.pack` a row for everything of fixed length takes a
third of that time. The target is always a temporary table: COPY into a table with forced row security is refused.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from struct import Struct
from typing import Final

import asyncpg

from usage_service.domain.quantities import Quantity
from usage_service.metering.rows import EventRow

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_length = Struct(">i").pack

EVENT_COLUMNS: Final = (
    "tenant_id",
    "identity",
    "event_time",
    "received_at",
    "kafka_offset",
    "digest",
    "day",
    "kafka_partition",
    "source",
    "event_id",
    "type",
    "data",
)
# Field count, then each field after its length; the last number is the length of the first text, `source`.
_event_head = Struct(">h i16s i16s iq iq iq iq ii ii i".replace(" ", "")).pack

ROLLUP_COLUMNS: Final = (
    "tenant_id",
    "meter_id",
    "window_start",
    "group_hash",
    "count",
    "groups",
    "sum",
    "minimum",
    "maximum",
)
_rollup_head = Struct(">h i16s i16s iq i16s iq i".replace(" ", "")).pack

UNIQUE_COLUMNS: Final = ("tenant_id", "meter_id", "window_start", "group_hash", "value_hash")
_unique_row = Struct(">h i16s i16s iq i16s i16s".replace(" ", "")).pack

STAGES: Final = (
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS staged_event (
        tenant_id uuid, identity uuid, event_time timestamptz, received_at timestamptz, kafka_offset bigint,
        digest bigint, day date, kafka_partition integer, source text, event_id text, type text, data text
    ) ON COMMIT DELETE ROWS
    """,
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS staged_rollup (
        tenant_id uuid, meter_id uuid, window_start timestamptz, group_hash uuid, count bigint, groups text,
        sum text, minimum text, maximum text
    ) ON COMMIT DELETE ROWS
    """,
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS staged_unique_value (
        tenant_id uuid, meter_id uuid, window_start timestamptz, group_hash uuid, value_hash uuid
    ) ON COMMIT DELETE ROWS
    """,
)


def event_bytes(row: EventRow) -> bytes:
    """One row of `staged_event`."""
    source, event_id, kind = row.source.encode(), row.id.encode(), row.type.encode()
    return b"".join(
        (
            _event_head(
                len(EVENT_COLUMNS),
                16,
                row.tenant,
                16,
                row.identity,
                8,
                row.time,
                8,
                row.received,
                8,
                row.offset,
                8,
                row.digest,
                4,
                row.day,
                4,
                row.partition,
                len(source),
            ),
            source,
            _length(len(event_id)),
            event_id,
            _length(len(kind)),
            kind,
            _length(len(row.text)),
            row.text,
        )
    )


def rollup_bytes(
    key: tuple[bytes, bytes, int, bytes],
    groups: bytes,
    count: int,
    total: Quantity | None,
    minimum: Quantity | None,
    maximum: Quantity | None,
) -> bytes:
    """One row of `staged_rollup`; quantities travel as text, which PostgreSQL reads into numeric without loss."""
    tenant, meter, window, group_hash = key
    return b"".join(
        (
            _rollup_head(len(ROLLUP_COLUMNS), 16, tenant, 16, meter, 8, window, 16, group_hash, 8, count, len(groups)),
            groups,
            _number(total),
            _number(minimum),
            _number(maximum),
        )
    )


def unique_bytes(key: tuple[bytes, bytes, int, bytes], value: bytes) -> bytes:
    """One row of `staged_unique_value`."""
    tenant, meter, window, group_hash = key
    return _unique_row(len(UNIQUE_COLUMNS), 16, tenant, 16, meter, 8, window, 16, group_hash, 16, value)


def _number(value: Quantity | None) -> bytes:
    if value is None:
        return _NULL
    text = str(value).encode()
    return _length(len(text)) + text


async def copy_into(
    connection: asyncpg.Connection, table: str, columns: tuple[str, ...], rows: Iterable[bytes], *, clear: bool
) -> None:
    """COPY of encoded rows into a temporary table of this session, inside the caller's transaction.

    A commit empties the table; `clear` empties it where the transaction has used it before.
    """
    if clear:
        await connection.execute(f"TRUNCATE {table}")
    body = io.BytesIO(b"".join((_SIGNATURE, *rows, _END)))
    await connection.copy_to_table(table, source=body, columns=list(columns), format="binary")
