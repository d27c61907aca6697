"""The last record of every key of the state topics."""

from collections import defaultdict
from collections.abc import Collection
from typing import TYPE_CHECKING

from tenant_service.republishing.comparison import Seen
from tenantry.events import KafkaSettings, StateReader, version_of

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord


async def read_topics(kafka: KafkaSettings, topics: Collection[str]) -> dict[str, dict[str, Seen]]:
    """By topic and key, up to the ends that the topics have now. Waits for Kafka for ever."""
    seen: dict[str, dict[str, Seen]] = defaultdict(dict)
    names = {kafka.topic(topic): topic for topic in topics}

    def apply(record: "ConsumerRecord[bytes, bytes]") -> None:
        if record.key is not None:
            # A record without a version is nobody's of ours, and older than whatever is.
            seen[names[record.topic]][record.key.decode()] = Seen(version_of(record) or 0, record.value is None)

    reader = StateReader(kafka, topics, apply)
    try:
        await reader.start()
    finally:
        await reader.stop()
    return seen
