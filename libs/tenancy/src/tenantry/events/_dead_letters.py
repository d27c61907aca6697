"""Records that a consumer can never use, and the guard that stops it when almost all of them look like that."""

from base64 import b64encode
from collections import deque
from typing import Final

from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry._redaction import redact
from tenantry.events._envelope import InvalidRecord
from tenantry.events._outbox import append_outbox
from tenantry.events._settings import KafkaSettings
from tenantry.events._topics import dead_letter_topic

# The guard's memory, and how much of it must be bad before the consumer is taken to be wrong rather than the records.
_WINDOW: Final = 2_000
_AT_LEAST: Final = 50
_RATIO: Final = 0.9

# In base64 a larger value would not fit a record; it stays in its topic, at the place that the letter names.
_MAX_VALUE_BYTES: Final = 500_000


class TooManyInvalidRecords(Exception):
    """Almost every record looked invalid: the consumer stopped before it drained the topic into the dead letters."""


class InvalidRecordGuard:
    """Counts over the last 2,000 records; a wrong deployment must not drain a topic into the dead letters."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, int]] = deque()
        self._records = 0
        self._invalid = 0

    def check(self, records: int, invalid: int) -> None:
        """Raises `TooManyInvalidRecords` if a batch of `records` with `invalid` bad ones makes it too many."""
        seen, bad = self._records + records, self._invalid + invalid
        if invalid and bad >= _AT_LEAST and bad >= _RATIO * seen:
            raise TooManyInvalidRecords(f"{bad} of the last {seen} records are invalid")

    def count(self, records: int, invalid: int) -> None:
        """Remembers a batch that was committed."""
        self._batches.append((records, invalid))
        self._records += records
        self._invalid += invalid
        while self._records - self._batches[0][0] >= _WINDOW:
            old_records, old_invalid = self._batches.popleft()
            self._records -= old_records
            self._invalid -= old_invalid


async def append_dead_letter(
    connection: AsyncConnection, kafka: KafkaSettings, group: str, invalid: InvalidRecord
) -> None:
    """Writes the record to `<topic>.dlq.v1` through the outbox, in the caller's transaction.

    The value is a document: the original key, value and headers in base64, topic, partition, offset, receipt time,
    consumer group and reason. A value of more than 500,000 bytes is left out (null, and `value_bytes` tells).
    """
    record: ConsumerRecord[bytes, bytes] = invalid.record
    topic = record.topic.removeprefix(kafka.topic_prefix)
    await append_outbox(
        connection,
        topic=dead_letter_topic(topic),
        key=f"{topic}/{record.partition}/{record.offset}",
        type="record.invalid.v1",
        version=record.offset,
        data={
            "topic": topic,
            "partition": record.partition,
            "offset": record.offset,
            "received_ms": record.timestamp,
            "group": group,
            "reason": redact(invalid.reason),
            "key": _base64(record.key),
            "value": _base64(record.value) if len(record.value or b"") <= _MAX_VALUE_BYTES else None,
            "value_bytes": len(record.value or b""),
            "headers": [[name, _base64(value)] for name, value in record.headers],
        },
    )


def _base64(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()
