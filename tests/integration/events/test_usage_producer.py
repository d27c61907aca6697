"""Acknowledged means that Kafka has it; anything else is said at once or within the delivery time."""

import asyncio
import time
from collections import Counter
from uuid import UUID

import pytest

from tenantry import Unavailable
from tenantry._context import Binding
from tenantry.events import USAGE_HEADERS, UsageProducer, partition_key
from tenantry.events._tracing import origin_of
from tenantry.testing import eventually

TOPIC = "usage.events.v1"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def producer(kafka):
    made = []

    async def producer(**options) -> UsageProducer:
        made.append(UsageProducer(kafka, **options))
        await made[-1].start()
        return made[-1]

    yield producer
    for each in made:
        await each.stop()


def events(count: int, tenants: int = 50, start: int = 0) -> list[tuple[bytes, bytes]]:
    return [
        (partition_key(UUID(int=n % tenants)), b'{"id":"%d"}' % n + b" " * 200) for n in range(start, start + count)
    ]


async def test_concurrent_lists_arrive_once_each_in_the_partition_of_their_key(broker, producer):
    topic = await broker.create(TOPIC, partitions=4)
    sender = await producer()
    lists = [events(100, start=n * 100) for n in range(50)]
    await asyncio.gather(*(sender.send(each) for each in lists))
    assert sender.pending_bytes == 0
    records = await broker.read(TOPIC, 5_000)
    assert Counter(record.value for record in records) == Counter(value for each in lists for _, value in each)
    assert all(list(record.headers) == USAGE_HEADERS for record in records)
    # The same keys through the client's own partitioner, which is Kafka's.
    await broker.send_keys(TOPIC, {record.key for record in records})
    places = {(record.key, record.partition) for record in await broker.read(TOPIC, 5_050)}
    assert len(places) == 50
    assert topic


async def test_a_list_says_once_in_each_batch_in_which_trace_it_stands(broker, producer):
    await broker.create(TOPIC, partitions=2)
    sender = await producer()
    binding = Binding("request", TRACE)
    try:
        await sender.send(events(100))
    finally:
        binding.release()
    await sender.send(events(100, start=100))
    records = await broker.read(TOPIC, 200)
    traced = [record for record in records if len(record.headers) > 1]
    assert sorted(record.partition for record in traced) == [0, 1]
    assert {origin_of(record) for record in traced} == {TRACE}


async def test_an_event_of_the_largest_size_goes_and_a_larger_one_is_refused(broker, producer):
    await broker.create(TOPIC)
    sender = await producer()
    await sender.send([(b"k", b"x" * 899_000), (b"k", b"y" * 899_000)])
    with pytest.raises(ValueError, match="more than 900000"):
        await sender.send([(b"k", b"x" * 900_001)])
    assert len(await broker.read(TOPIC, 2)) == 2


async def test_with_the_broker_away_every_list_is_refused_in_time_and_it_recovers_by_itself(network, broker, producer):
    await broker.create(TOPIC, partitions=2)
    sender = await producer(delivery_seconds=1.0)
    await sender.send(events(10))
    await network.cut()
    started = time.monotonic()
    with pytest.raises(Unavailable, match="may yet count") as refusal:
        await sender.send(events(10, start=10))
    assert refusal.value.retry_after >= 1
    await eventually(lambda: not sender.ready)
    with pytest.raises(Unavailable):
        await sender.send(events(10, start=20))
    assert time.monotonic() - started < 5
    started = time.monotonic()
    with pytest.raises(Unavailable):
        await sender.send(events(10, start=30))
    assert time.monotonic() - started < 0.9, "known to be away, so refused without the second that a try takes"
    await network.mend()
    await eventually(lambda: sender.ready, within=60)
    await sender.send(events(10, start=40))
    ids = Counter(record.value for record in await broker.read(TOPIC, 30))
    acknowledged = [value for _, value in events(10) + events(10, start=40)]
    assert all(ids[value] >= 1 for value in acknowledged)


async def test_pending_events_are_bounded(network, broker, producer):
    await broker.create(TOPIC)
    sender = await producer(max_pending_bytes=100_000, delivery_seconds=2.0)
    await network.cut()
    results = await asyncio.gather(*(sender.send(events(100, start=n)) for n in range(20)), return_exceptions=True)
    assert all(isinstance(result, Unavailable) for result in results)
    assert sum("too many" in str(result) for result in results) >= 15
    assert sender.pending_bytes <= 100_000
    await network.mend()


async def test_it_starts_with_the_broker_away_and_connects_later(network, broker, kafka):
    await broker.create(TOPIC)
    await network.cut()
    sender = UsageProducer(kafka, delivery_seconds=0.3)
    await sender.start()
    try:
        with pytest.raises(Unavailable, match="not reachable"):
            await sender.send(events(1))
        await network.mend()
        await eventually(lambda: sender.ready, within=60)
        await sender.send(events(1))
    finally:
        await sender.stop()


async def test_stopping_with_the_broker_away_ends(network, broker, kafka):
    await broker.create(TOPIC)
    sender = UsageProducer(kafka, delivery_seconds=0.5)
    await sender.start()
    await network.cut()
    waiting = asyncio.create_task(sender.send(events(10)))
    await asyncio.sleep(0)
    async with asyncio.timeout(15):
        await sender.stop()
        with pytest.raises(Unavailable):
            await waiting
    await network.mend()


async def test_a_client_that_failed_for_good_is_replaced(broker, producer):
    await broker.create(TOPIC)
    sender = await producer()
    await sender.send(events(1))
    first = sender._producer
    first._sender.sender_task.cancel()
    first._message_accumulator.fail_all(RuntimeError("lost sequence"))
    with pytest.raises((Unavailable, RuntimeError)):
        await sender.send(events(1, start=1))
    await eventually(lambda: sender._producer not in {None, first}, within=60)
    await sender.send(events(1, start=2))
