"""Dead letters: rows that keep what could not be counted, with the reason, for at least 13 months."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg
import msgspec
import prometheus_client
import structlog

from tenantry import uuid7
from usage_service.domain.instants import instant
from usage_service.metering.rows import EventRow, Position

LETTERS: Final = prometheus_client.Counter(
    "usage_dead_letters_total", "Events, or parts of them, that could not be counted, by what is wrong", ["kind"]
)

log = structlog.get_logger(__name__)

NO_TENANT: Final = UUID(int=0)

# A late event has one letter, whoever refused it: one that was replayed in vain is open again.
_INSERT = """
INSERT INTO pool.dead_letter (tenant_id, id, kind, reason, meter_id, type, source, event_id, kafka_partition,
                              kafka_offset, received_at, payload, identity, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, clock_timestamp())
ON CONFLICT (tenant_id, identity) WHERE kind = 'late'
DO UPDATE SET reason = excluded.reason, replayed_at = NULL, replayed_by = NULL
"""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`kind`: undecodable, unknown-tenant, invalid-value (for the meter named), conflict, or late.

    Late is here what is too late for PostgreSQL; what is too old for its tenant the ingest keeps
    (`usage_service.dead_letters`). `identity` is there for the late alone.
    """

    tenant_id: UUID
    kind: str
    reason: str
    position: Position
    payload: bytes
    meter_id: UUID | None = None
    type: str | None = None
    source: str | None = None
    event_id: str | None = None
    identity: UUID | None = None

    @classmethod
    def of_row(cls, row: EventRow, *, kind: str, reason: str, meter: UUID | None = None) -> DeadLetter:
        """Of an event that was read but not, or not wholly, counted."""
        event = {
            "specversion": "1.0",
            "id": row.id,
            "source": row.source,
            "type": row.type,
            "subject": str(UUID(bytes=row.tenant)),
            "time": instant(row.time),
            "data": msgspec.Raw(row.text),
        }
        return cls(
            tenant_id=UUID(bytes=row.tenant),
            kind=kind,
            reason=reason,
            position=Position(row.partition, row.offset, row.received),
            payload=msgspec.json.encode(event),
            meter_id=meter,
            type=row.type,
            source=row.source,
            event_id=row.id,
            identity=UUID(bytes=row.identity) if kind == "late" else None,
        )


async def write_dead_letters(connection: asyncpg.Connection, letters: Sequence[DeadLetter]) -> None:
    """In the caller's transaction."""
    if not letters:
        return
    await connection.executemany(
        _INSERT,
        [
            (
                letter.tenant_id,
                uuid7(),
                letter.kind,
                letter.reason[:1000],
                letter.meter_id,
                letter.type,
                letter.source,
                letter.event_id,
                letter.position.partition,
                letter.position.offset,
                instant(letter.position.received),
                letter.payload,
                letter.identity,
            )
            for letter in letters
        ],
    )
    report_letters(Counter(letter.kind for letter in letters))


def report_letters(counts: Mapping[str, int]) -> None:
    """What an operator is alerted by: a metric and a warning by kind. A transaction that is repeated counts again."""
    for kind, count in counts.items():
        if count:
            LETTERS.labels(kind).inc(count)
            log.warning("usage_dead_letters", kind=kind, count=count)
