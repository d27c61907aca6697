"""The raw events of a scope, block by block, from PostgreSQL and from the archive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg

from usage_service.archive.reading import ArchiveReader, joined
from usage_service.backfilling.scopes import Scope
from usage_service.metering.cancelled import NOT_CANCELLED, cancelled_on

_BLOCK: Final = 2_000

_EVENTS: Final = f"""
  FROM pool.usage_event AS event
 WHERE day = $1 AND tenant_id > $2 AND tenant_id <= $3 AND type = $4 AND event_time >= $5 AND event_time < $6
   AND {NOT_CANCELLED}
"""
_READ: Final = f"""
SELECT tenant_id, event_time, received_at, kafka_partition, kafka_offset, catalogue_version, data
{_EVENTS}
"""
_MARK: Final = f"""
SELECT count(*), COALESCE(sum(kafka_offset), 0), COALESCE(sum((kafka_offset + 1) * kafka_partition), 0) {_EVENTS}
"""

Mark = tuple[int, int, int]
"""How many events, the sum of their offsets, and that of their offsets times their partitions."""


class RawEvent(NamedTuple):
    tenant_id: UUID
    event_time: datetime
    received_at: datetime
    kafka_partition: int
    kafka_offset: int
    catalogue_version: int
    data: str


_PARTITION: Final = RawEvent._fields.index("kafka_partition")
_OFFSET: Final = RawEvent._fields.index("kafka_offset")


class Order(StrEnum):
    """In which order events are needed; those of the archive come by time in any case."""

    ANY = ""
    RECEIPT = "ORDER BY received_at, kafka_partition, kafka_offset"
    TIME = "ORDER BY event_time, received_at, kafka_partition, kafka_offset"


@dataclass(slots=True)
class RawEvents:
    """The events of a type in a scope that no correction cancels, in the caller's transaction."""

    connection: asyncpg.Connection
    archive: ArchiveReader
    scope: Scope
    event_type: str
    _seen: Mark = (0, 0, 0)

    async def blocks(self, order: Order) -> AsyncIterator[Sequence[RawEvent]]:
        """Some events at a time, so that an hour of any size can be counted.

        Raises what the archive raises.
        """
        if not self.scope.archived:
            async for rows in self._stored(order):
                yield rows
            return
        block: list[RawEvent] = []
        async for event in joined(self._stored_events(order), self._archived(order), ordered=order is Order.TIME):
            block.append(event)
            if len(block) == _BLOCK:
                yield block
                block = []
        yield block

    async def have_changed(self) -> bool:
        """Whether PostgreSQL has other events than it had for the blocks: some came, were cancelled, or were purged."""
        [mark] = await self.connection.fetch(_MARK, *self._parameters())
        return tuple(int(each) for each in mark) != self._seen

    def _parameters(self) -> tuple[object, ...]:
        scope = self.scope
        return scope.day, scope.after, scope.upto, self.event_type, *scope.span

    async def _stored(self, order: Order) -> AsyncIterator[Sequence[Any]]:
        self._seen = (0, 0, 0)
        cursor = await self.connection.cursor(_READ + order.value, *self._parameters())
        while rows := await cursor.fetch(_BLOCK):
            count, offsets, places = self._seen
            self._seen = (
                count + len(rows),
                offsets + sum(row[_OFFSET] for row in rows),
                places + sum((row[_OFFSET] + 1) * row[_PARTITION] for row in rows),
            )
            yield rows

    async def _stored_events(self, order: Order) -> AsyncIterator[RawEvent]:
        async for block in self._stored(order):
            for row in block:
                yield RawEvent(*row)

    async def _archived(self, order: Order) -> AsyncIterator[RawEvent]:
        tenant = self.scope.upto
        cancelled = await cancelled_on(self.connection, tenant, self.scope.day)
        events = self.archive.stream(
            tenant, self.event_type, [self.scope.span], received_before=None, ordered=order is Order.TIME
        )
        async for event in events:
            if event.identity not in cancelled:
                yield RawEvent(
                    tenant,
                    event.event_time,
                    event.received_at,
                    event.kafka_partition,
                    event.kafka_offset,
                    event.catalogue_version,
                    event.data,
                )
