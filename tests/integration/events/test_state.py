"""Local state from compacted topics: read to the end whatever the end looks like, then followed."""

import asyncio
import time

from aiokafka import AIOKafkaProducer

from tenantry.events import InvalidRecord, StateReader
from tenantry.testing import eventually

TOPIC = "platform.state.v1"


async def read_all(kafka, *topics) -> list[bytes]:
    seen: list[bytes] = []
    reader = StateReader(kafka, topics or [TOPIC], lambda record: seen.append(record.value))
    try:
        async with asyncio.timeout(20):
            await reader.start()
        assert reader.caught_up
    finally:
        await reader.stop()
    return seen


async def test_empty_topics_are_read_at_once(broker, kafka):
    await broker.create(TOPIC, partitions=3)
    await broker.create("tenant.config.v1")
    assert await read_all(kafka, TOPIC, "tenant.config.v1") == []


async def test_a_topic_that_ends_with_transaction_markers_has_an_end(broker, kafka):
    await broker.create(TOPIC)
    await broker.write_in_transaction(TOPIC, [b"1", b"2"])
    await broker.write_in_transaction(TOPIC, [b"3"])
    assert await read_all(kafka) == [b"1", b"2", b"3"]


async def test_an_open_transaction_does_not_hold_up_the_start_and_is_seen_when_it_commits(broker, kafka):
    topic = await broker.create(TOPIC)
    await broker.write(TOPIC, [b"1"])
    seen: list[bytes] = []
    reader = StateReader(kafka, [TOPIC], lambda record: seen.append(record.value))
    options = kafka.client_options() | {"transactional_id": f"{kafka.topic_prefix}writer"}
    async with AIOKafkaProducer(**options) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, value=b"2", key=b"k")
        await producer.flush()
        try:
            async with asyncio.timeout(10):
                await reader.start()
            assert seen == [b"1"]
            await producer.commit_transaction()
            await eventually(lambda: seen == [b"1", b"2"])
        finally:
            await reader.stop()


async def test_a_compacted_topic_whose_last_records_are_gone_has_an_end(broker, kafka):
    config = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.0",
        "segment.ms": "100",
        "delete.retention.ms": "0",
        "min.compaction.lag.ms": "0",
    }
    await broker.create(TOPIC, **config)
    await broker.write(TOPIC, [b"1", b"2", b"3"])
    await asyncio.sleep(0.2)  # segment.ms: only a later record rolls the segment
    await broker.write(TOPIC, [None], key=b"k")
    await asyncio.sleep(0.2)
    await broker.write(TOPIC, [b"other"], key=b"o")
    assert (await read_all(kafka))[-1] == b"other"


async def test_what_follows_is_applied_and_the_age_is_known(broker, kafka):
    await broker.create(TOPIC)
    seen: list[bytes] = []
    reader = StateReader(kafka, [TOPIC], lambda record: seen.append(record.value))
    assert reader.lag_seconds == float("inf")
    try:
        await reader.start()
        started = time.monotonic()
        await broker.write(TOPIC, [b"new"])
        await eventually(lambda: seen == [b"new"])
        assert time.monotonic() - started < 5
        await eventually(lambda: reader.lag_seconds < 2)
    finally:
        await reader.stop()


async def test_one_bad_document_hides_no_later_one(broker, kafka):
    await broker.create(TOPIC)
    await broker.write(TOPIC, [b"bad", b"worse", b"good"])
    seen: list[bytes] = []

    def apply(record) -> None:
        if record.value == b"bad":
            raise InvalidRecord(record, "bad")
        if record.value == b"worse":
            raise KeyError(record.value)
        seen.append(record.value)

    reader = StateReader(kafka, [TOPIC], apply)
    try:
        await reader.start()
        assert seen == [b"good"]
    finally:
        await reader.stop()
