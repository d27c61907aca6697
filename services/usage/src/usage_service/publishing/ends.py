"""Where the partitions of a topic end now."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from tenantry import Unavailable
from tenantry.events import KafkaSettings

_ANSWER_SECONDS = 5.0


class TopicEnds:
    """Asks Kafka for end offsets over one connection that is opened when it is first needed."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        """`topic` without prefix."""
        self._kafka = kafka
        self._topic = kafka.topic(topic)
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()

    async def end_offsets(self) -> dict[int, int]:
        """By partition: the offset that its next record will get. Raises Unavailable while Kafka is away."""
        try:
            async with self._lock, asyncio.timeout(_ANSWER_SECONDS):
                if self._consumer is None:
                    self._consumer = await self._open()
                ends = await self._consumer.end_offsets(self._consumer.assignment())
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            raise Unavailable("Kafka does not say where its partitions end.") from error
        return {place.partition: end for place, end in ends.items()}

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _open(self) -> AIOKafkaConsumer:
        # A subscription, because that is how a client learns of a topic's partitions; paused, because nothing is read.
        consumer = AIOKafkaConsumer(
            self._topic, **self._kafka.client_options(), enable_auto_commit=False, auto_offset_reset="latest"
        )
        try:
            await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        consumer.pause(*consumer.assignment())
        return consumer
