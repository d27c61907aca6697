"""Records of tenants that this process does not know (yet): its directory may lag behind the ingest's.

They wait in a table for a minute, outside of the stream, so that one unknown tenant holds nobody up. Only the owner of
their partition takes them up again, inside a batch: it alone may write identities of that partition. Where no event
comes by, `nudge_parked` sends a record that does nothing but make the owner look.

A batch looks at the oldest few of each partition and leaves those that still wait where they are, so however many there
are, it does not take longer. Behind many of one stranger another tenant's may wait for that minute, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import msgspec
from aiokafka import AIOKafkaProducer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantry.events import KafkaSettings
from usage_service.domain.instants import instant, microseconds
from usage_service.metering.rows import Position

PARKED_SECONDS: Final = 60
_NUDGE_SECONDS: Final = 1.0

_PAGE: Final = 500
_PAGE_BYTES: Final = 1 << 20
"""Of one partition: records that begin within so many bytes."""

_INSERT = """
INSERT INTO system.parked_record (partition, "offset", tenant_id, key, value, received_at, parked_at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp()) ON CONFLICT DO NOTHING
"""
_OLDEST = """
SELECT partition, "offset", tenant_id, COALESCE(key, convert_to(CAST(tenant_id AS text), 'UTF8')) AS key, value,
       received_at, parked_at
  FROM unnest($1::int[]) AS asked (number)
 CROSS JOIN LATERAL (
       SELECT *, sum(octet_length(value)) OVER (ORDER BY "offset") - octet_length(value) AS bytes_before
         FROM (SELECT * FROM system.parked_record WHERE partition = asked.number ORDER BY "offset" LIMIT $2) AS oldest
       ) AS page
 WHERE bytes_before < $3
 ORDER BY partition, "offset"
"""
_DELETE = """
DELETE FROM system.parked_record AS parked USING unnest($1::int[], $2::bigint[]) AS taken (partition, "offset")
 WHERE parked.partition = taken.partition AND parked."offset" = taken."offset"
"""
_WAITING = text("SELECT DISTINCT partition FROM system.parked_record ORDER BY 1")


class Parked(msgspec.Struct, frozen=True):
    position: Position
    tenant_id: UUID
    key: bytes
    value: bytes
    parked_at: datetime | None = None


async def park(connection: asyncpg.Connection, records: Sequence[Parked]) -> None:
    """In the caller's transaction."""
    if records:
        await connection.executemany(
            _INSERT,
            [
                (
                    record.position.partition,
                    record.position.offset,
                    record.tenant_id,
                    record.key,
                    record.value,
                    instant(record.position.received),
                )
                for record in records
            ],
        )


async def oldest_parked(connection: asyncpg.Connection, partitions: Sequence[int]) -> list[Parked]:
    """The parked records of the partitions that waited for longest, in stream order."""
    rows = await connection.fetch(_OLDEST, list(partitions), _PAGE, _PAGE_BYTES)
    return [
        Parked(Position(partition, offset, microseconds(received_at)), tenant_id, key, value, parked_at)
        for partition, offset, tenant_id, key, value, received_at, parked_at in rows
    ]


async def take_parked(connection: asyncpg.Connection, positions: Sequence[Position]) -> None:
    """Takes records out of the table, in the caller's transaction."""
    await connection.execute(_DELETE, [each.partition for each in positions], [each.offset for each in positions])


async def nudge_parked(engine: AsyncEngine, kafka: KafkaSettings, topic: str, header: str) -> None:
    """Wakes the owners of partitions with parked records, every second, until cancelled."""
    producer = AIOKafkaProducer(**kafka.client_options(), acks="all")
    await producer.start()
    try:
        while True:
            async with engine.connect() as connection:
                waiting = (await connection.execute(_WAITING)).scalars().all()
            for partition in waiting:
                await producer.send_and_wait(
                    kafka.topic(topic), key=header.encode(), partition=partition, headers=[(header, b"1")]
                )
            await asyncio.sleep(_NUDGE_SECONDS)
    finally:
        await producer.stop()
