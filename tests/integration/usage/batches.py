"""Batches of the meter worker without Kafka: records in order, committed or held open as a test wants it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from tenantry.events import partition_key
from tenantry.events._offsets import Claims, advance, claim
from usage_service.metering.worker import GROUP, TOPIC, MeterWorker

from .support import Usage

RECEIVED = int(datetime.now(UTC).timestamp() * 1_000)


class Member:
    """A consumer member that owns one partition."""

    def __init__(self, usage: Usage, partition: int, worker: MeterWorker) -> None:
        self._engine = usage.databases.system
        self._group = usage.kafka.group(GROUP)
        self._place = TopicPartition(usage.kafka.topic(TOPIC), partition)
        self._worker = worker
        self._claims: Claims = {}
        self._offset = 0

    @classmethod
    async def join(cls, usage: Usage, partition: int = 0, **options: Any) -> Member:
        member = cls(usage, partition, usage.worker(**options))
        async with member._engine.begin() as connection:
            member._claims = await claim(connection, member._group, {member._place: 0})
        return member

    def bound_groups(self, groups: int) -> None:
        """Gives hours no more groups than this."""
        self._worker._rollups._max_groups = groups

    async def count(self, *events: dict[str, Any]) -> None:
        """A batch of these events, committed."""
        async with self.batch(*events):
            pass

    @asynccontextmanager
    async def batch(self, *events: dict[str, Any]):
        """A batch that is handled and not committed before the block ends."""
        records = self._records(events)
        async with self._engine.begin() as connection:
            await self._worker.handle(connection, records)
            await advance(connection, self._group, self._claims, {self._place: self._offset})
            yield connection
        self._claims[self._place].next_offset = self._offset

    def _records(self, events: Sequence[dict[str, Any]]) -> list[ConsumerRecord]:
        records = []
        for event in events:
            key, body = partition_key(event["subject"]), json.dumps(event).encode()
            stamp = RECEIVED + self._offset
            place = (self._place.topic, self._place.partition, self._offset, stamp, 1)
            records.append(ConsumerRecord(*place, key, body, None, len(key), len(body), ()))
            self._offset += 1
        return records
