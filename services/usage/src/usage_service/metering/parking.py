"""Records of tenants that this process does not know (yet): its directory may lag behind the ingest's.

They wait in a table for a minute, outside of the stream, so that one unknown tenant holds nobody up. Only the owner of
their partition takes them up again, inside a batch: it alone may write identities of that partition. Where no event
comes by, `nudge_parked` sends a record that does nothing but make the owner look.
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

_INSERT = """
INSERT INTO system.parked_record (partition, "offset", tenant_id, key, value, received_at, parked_at)
VALUES ($1, $2, $3, $4, $5, $6, COALESCE($7, clock_timestamp())) ON CONFLICT DO NOTHING
"""
_TAKE = """
DELETE FROM system.parked_record WHERE partition = ANY($1::int[])
RETURNING partition, "offset", tenant_id, COALESCE(key, convert_to(CAST(tenant_id AS text), 'UTF8')) AS key, value,
          received_at, parked_at
"""
_WAITING = text("SELECT DISTINCT partition FROM system.parked_record ORDER BY 1")


class Parked(msgspec.Struct, frozen=True):
    position: Position
    tenant_id: UUID
    key: bytes
    value: bytes
    parked_at: datetime | None = None


async def park(connection: asyncpg.Connection, records: Sequence[Parked]) -> None:
    """In the caller's transaction; a record that comes back keeps the time it was first parked."""
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
                    record.parked_at,
                )
                for record in records
            ],
        )


async def take_parked(connection: asyncpg.Connection, partitions: Sequence[int]) -> list[Parked]:
    """Takes the parked records of the partitions out of the table, in the caller's transaction, in stream order."""
    rows = await connection.fetch(_TAKE, list(partitions))
    taken = [
        Parked(Position(partition, offset, microseconds(received_at)), tenant_id, key, value, parked_at)
        for partition, offset, tenant_id, key, value, received_at, parked_at in rows
    ]
    return sorted(taken, key=lambda record: (record.position.partition, record.position.offset))


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
