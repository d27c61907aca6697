"""Cuts: the line up to which an invoice run counts (decision 12).

    waiting    the end offsets of all partitions of usage.events.v1 are captured
    covered    every partition is counted past its captured offset, and no record below it is parked: from here on the
               rollups and the queue hold everything that the cut covers
    published  every lane has published what was queued when it saw the cut as covered, and then the cut record went to
               every partition of usage.rollups.v1, in one Kafka transaction

Each step reads what the one before committed, so any process can go on after any crash. A crash between the Kafka
commit and the last update publishes the cut record twice, which says the same thing twice.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from aiokafka import AIOKafkaProducer
from sqlalchemy import Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from tenantry import NotFound, uuid7
from tenantry.events import KafkaSettings
from usage_service.metering.rollups import LANES
from usage_service.publishing.held import hold
from usage_service.publishing.rollups import TOPIC

Offsets = dict[str, int]
"""End offsets by partition number, as JSON has them."""

_WORK: Final = 100  # beside the lanes
_PAUSE_SECONDS: Final = 0.1
_HEADERS: Final = [("type", b"cut"), ("content-type", b"application/json")]

_INSERT = text(
    """
    INSERT INTO system.cut (id, state, offsets, created_at)
    VALUES (:id, 'waiting', :offsets, clock_timestamp()) RETURNING *
    """
).bindparams(bindparam("offsets", type_=JSONB))
_GET = text("SELECT * FROM system.cut WHERE id = :id")
_COVER = text(
    """
    UPDATE system.cut SET state = 'covered', covered_at = clock_timestamp()
     WHERE state = 'waiting'
       AND NOT EXISTS (
           SELECT FROM jsonb_each_text(offsets) AS captured (partition, ended)
            WHERE captured.ended::bigint > 0
              AND NOT EXISTS (
                  SELECT FROM system.consumer_offset AS counted
                   WHERE counted.group_id = :group AND counted.topic = :topic
                     AND counted.partition = captured.partition::int AND counted.next_offset >= captured.ended::bigint))
       AND NOT EXISTS (
           SELECT FROM system.parked_record AS parked
            WHERE parked."offset" < COALESCE((offsets ->> parked.partition::text)::bigint, 0))
    """
)
_READY = text(
    """
    SELECT id, offsets FROM system.cut
     WHERE state = 'covered' AND (SELECT count(*) FROM system.cut_lane WHERE cut_id = cut.id) = :lanes
     ORDER BY id
    """
)
_PUBLISHED = text(
    "UPDATE system.cut SET state = 'published', published_at = clock_timestamp() WHERE id = :id AND state = 'covered'"
)


class Cut(msgspec.Struct, frozen=True):
    id: UUID
    state: str
    offsets: Offsets
    created_at: datetime
    covered_at: datetime | None = None
    published_at: datetime | None = None


class CutRecord(msgspec.Struct, frozen=True):
    """The value of a cut record in one partition of `usage.rollups.v1`."""

    cut_id: str
    offsets: Offsets
    partition: int
    partitions: int


async def create_cut(session: AsyncSession, offsets: Offsets) -> Cut:
    """A new cut at these end offsets. The caller commits; the relay does the rest."""
    parameters = {"id": uuid7(), "offsets": offsets}
    return _cut((await session.execute(_INSERT, parameters)).one())


async def get_cut(session: AsyncSession, cut_id: UUID) -> Cut:
    """Raises NotFound."""
    row = (await session.execute(_GET, {"id": cut_id})).one_or_none()
    if row is None:
        raise NotFound("There is no such cut.")
    return _cut(row)


class CutKeeper:
    """Takes cuts from waiting to published until cancelled; any number of processes may run one."""

    def __init__(self, engine: AsyncEngine, kafka: KafkaSettings, *, group: str, topic: str) -> None:
        """`group` and `topic` of the meter worker, without prefix."""
        self._engine = engine
        self._kafka = kafka
        self._counted = {"group": kafka.group(group), "topic": kafka.topic(topic)}
        self._rollups = kafka.topic(TOPIC)

    async def run(self) -> None:
        await hold(self._engine, self._kafka, number=_WORK, name="cuts", work=self._work)

    async def _work(self, connection: AsyncConnection, producer: AIOKafkaProducer) -> None:
        while True:
            await self.turn(connection, producer)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def turn(self, connection: AsyncConnection, producer: AIOKafkaProducer) -> None:
        """Takes each cut a step on that can go one, over a connection in autocommit mode."""
        await connection.execute(_COVER, self._counted)
        for cut in (await connection.execute(_READY, {"lanes": LANES})).all():
            await self._publish(producer, cut)
            await connection.execute(_PUBLISHED, {"id": cut.id})

    async def _publish(self, producer: AIOKafkaProducer, cut: Row[Any]) -> None:
        partitions = sorted(await producer.partitions_for(self._rollups))
        async with producer.transaction():
            acknowledgements = [
                await producer.send(
                    self._rollups,
                    partition=partition,
                    key=f"cut|{cut.id}".encode(),
                    value=msgspec.json.encode(CutRecord(str(cut.id), cut.offsets, partition, len(partitions))),
                    headers=_HEADERS,
                )
                for partition in partitions
            ]
            await asyncio.gather(*acknowledgements)


def _cut(row: Row[Any]) -> Cut:
    return Cut(row.id, row.state, row.offsets, row.created_at, row.covered_at, row.published_at)
