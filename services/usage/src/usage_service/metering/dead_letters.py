"""Dead letters: rows that keep what could not be counted, with the reason, for at least 13 months."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
import prometheus_client
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry import uuid7
from usage_service.domain.identity import identity_on_day
from usage_service.domain.instants import instant
from usage_service.metering.rows import EventRow, Position

KINDS: Final = ("undecodable", "unknown-tenant", "invalid-value", "conflict", "late")
LETTERS: Final = prometheus_client.Counter(
    "usage_dead_letters_total", "Events, or parts of them, that could not be counted, by what is wrong", ["kind"]
)
for _kind in KINDS:
    LETTERS.labels(_kind)  # a series that begins with its first letters has not increased by them

log = structlog.get_logger(__name__)

NO_TENANT: Final = UUID(int=0)

# A late event has one letter. What was only refused changes nothing of it: a client that repeats leaves one letter and
# not one a try. What was accepted opens it again, as a replay may have been in vain, and is what it says from then on
# where nothing was accepted before.
_WRITE = text(
    """
    INSERT INTO pool.dead_letter AS known
           (tenant_id, id, kind, reason, meter_id, type, source, event_id, kafka_partition, kafka_offset, received_at,
            payload, identity, created_at)
    SELECT letter.*, clock_timestamp()
      FROM unnest(CAST(:tenants AS uuid[]), CAST(:ids AS uuid[]), CAST(:kinds AS text[]), CAST(:reasons AS text[]),
                  CAST(:meters AS uuid[]), CAST(:types AS text[]), CAST(:sources AS text[]), CAST(:event_ids AS text[]),
                  CAST(:partitions AS int[]), CAST(:offsets AS bigint[]), CAST(:received AS timestamptz[]),
                  CAST(:payloads AS bytea[]), CAST(:identities AS uuid[]))
           AS letter (tenant_id, id, kind, reason, meter_id, type, source, event_id, kafka_partition, kafka_offset,
                      received_at, payload, identity)
     ORDER BY letter.tenant_id, letter.identity
    ON CONFLICT (tenant_id, identity) WHERE kind = 'late' DO UPDATE SET
           reason = excluded.reason,
           replayed_at = NULL,
           replayed_by = NULL,
           created_at = excluded.created_at,
           type = CASE WHEN known.kafka_offset IS NULL THEN excluded.type ELSE known.type END,
           payload = CASE WHEN known.kafka_offset IS NULL THEN excluded.payload ELSE known.payload END,
           received_at = CASE WHEN known.kafka_offset IS NULL THEN excluded.received_at ELSE known.received_at END,
           kafka_partition = COALESCE(known.kafka_partition, excluded.kafka_partition),
           kafka_offset = COALESCE(known.kafka_offset, excluded.kafka_offset)
     WHERE excluded.kafka_offset IS NOT NULL
    RETURNING kind
    """
)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`kind`: undecodable, unknown-tenant, invalid-value (for the meter named), conflict, or late.

    Late is what is too late for PostgreSQL, or what the ingest has refused as too old for its tenant: that has no
    `position`, and a `received_at` of its own. `identity` is there for the late alone: of the event and its day.
    """

    tenant_id: UUID
    kind: str
    reason: str
    position: Position | None
    payload: bytes
    meter_id: UUID | None = None
    type: str | None = None
    source: str | None = None
    event_id: str | None = None
    identity: UUID | None = None
    received_at: datetime | None = None

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
            identity=UUID(bytes=identity_on_day(row.identity, row.day)) if kind == "late" else None,
        )


async def write_dead_letters(connection: AsyncConnection, letters: Iterable[DeadLetter]) -> None:
    """In the caller's transaction."""
    once = _once(letters)
    if not once:
        return
    places = [letter.position for letter in once]
    written = await connection.execute(
        _WRITE,
        {
            "tenants": [letter.tenant_id for letter in once],
            "ids": [uuid7() for _ in once],
            "kinds": [letter.kind for letter in once],
            "reasons": [letter.reason[:1000] for letter in once],
            "meters": [letter.meter_id for letter in once],
            "types": [letter.type for letter in once],
            "sources": [letter.source for letter in once],
            "event_ids": [letter.event_id for letter in once],
            "partitions": [None if place is None else place.partition for place in places],
            "offsets": [None if place is None else place.offset for place in places],
            "received": [
                letter.received_at if letter.position is None else instant(letter.position.received) for letter in once
            ],
            "payloads": [letter.payload for letter in once],
            "identities": [letter.identity for letter in once],
        },
    )
    _report(Counter(written.scalars()))


def _once(letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    """Of the copies of a late event the first: no statement may write one row twice."""
    kept: dict[tuple[UUID, UUID] | int, DeadLetter] = {}
    for number, letter in enumerate(letters):
        kept.setdefault(number if letter.identity is None else (letter.tenant_id, letter.identity), letter)
    return list(kept.values())


def _report(counts: Mapping[str, int]) -> None:
    """What an operator is alerted by: a metric and a warning by kind. A transaction that is repeated counts again."""
    for kind, count in counts.items():
        if count:
            LETTERS.labels(kind).inc(count)
            log.warning("usage_dead_letters", kind=kind, count=count)
