"""What a relay has sent to topics whose records may not come twice.

Between the commit to Kafka and the deletion of the rows a relay may die, and the next one finds rows that are sent
already. Records of state carry a version, and who has it drops them. For topics declared `once` the ids of the rows are
committed in the Kafka transaction itself, as what a consumer group has to say of an offset, and the next holder deletes
them before it reads a row: either both are there, or neither.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry.events._settings import KafkaSettings
from tenantry.events._topics import Rights, load_principals, load_topics

MOST: Final = 100
"""Rows of such topics in one transaction: 33 characters each, and Kafka keeps 4096 with an offset."""

_DELETE: Final = text("DELETE FROM system.outbox WHERE id = ANY(:ids)")


class SentOnce:
    """Of one lane of a service. `name` is that of the lane's producer."""

    def __init__(self, service: str, name: str, kafka: KafkaSettings) -> None:
        writes = load_principals().get(service, Rights()).writes
        self._topics = sorted(topic.name for topic in load_topics() if topic.once and topic.name in writes)
        self._group = kafka.group(name)
        self._kafka = kafka

    def cut(self, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """As many rows as one transaction may send, from the first on."""
        places = [place for place, row in enumerate(rows) if row.topic in self._topics]
        return rows if len(places) <= MOST else rows[: places[MOST]]

    async def note(self, producer: AIOKafkaProducer, rows: Sequence[Row[Any]]) -> None:
        """Notes what is sent, in the producer's transaction."""
        ids = [row.id.hex for row in rows if row.topic in self._topics]
        if ids:
            await producer.send_offsets_to_transaction({self._place: OffsetAndMetadata(0, ",".join(ids))}, self._group)

    async def delete(self, connection: AsyncConnection) -> None:
        """Deletes the rows that an earlier holder has sent. The lane's producer has started, so none sends any more."""
        if not self._topics:
            return
        admin = AIOKafkaAdminClient(**self._kafka.client_options())
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(self._group, partitions=[self._place])
        finally:
            await admin.close()
        noted = offsets[self._place].metadata if self._place in offsets else ""
        if noted:
            await connection.execute(_DELETE, {"ids": [UUID(hex=each) for each in noted.split(",")]})

    @property
    def _place(self) -> TopicPartition:
        return TopicPartition(self._kafka.topic(self._topics[0]), 0)
