"""Effects in PostgreSQL exactly once, whatever happens to members, records and servers."""

import asyncio
import json
from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry.events import (
    InvalidRecord,
    OutboxRelay,
    RepeatBatch,
    TooManyInvalidRecords,
    TransactionalConsumer,
)
from tenantry.testing import eventually

TOPIC = "usage.events.v1"
INSERT = text("INSERT INTO effect (partition, at, value) VALUES (:partition, :at, :value)")


async def store(connection: AsyncConnection, records: Sequence[ConsumerRecord]) -> None:
    await connection.execute(
        INSERT,
        [{"partition": record.partition, "at": record.offset, "value": record.value.decode()} for record in records],
    )


@pytest.fixture
def effects(engine):
    async def effects() -> list[str]:
        async with engine.connect() as connection:
            return list(await connection.scalars(text("SELECT value FROM effect ORDER BY partition, at")))

    return effects


@pytest.fixture
def offsets(engine):
    async def offsets() -> list[tuple[int, int, int]]:
        async with engine.connect() as connection:
            rows = await connection.execute(
                text("SELECT partition, next_offset, owner_epoch FROM system.consumer_offset ORDER BY 1")
            )
            return [tuple(row) for row in rows]

    return offsets


@pytest.fixture
def consumer(kafka, engine):
    def consumer(handle=store, **options) -> TransactionalConsumer:
        return TransactionalConsumer(
            kafka=kafka, engine=engine, group="test", topics=[TOPIC], handle=handle, **({"max_wait_ms": 0} | options)
        )

    return consumer


def values(first: int, last: int) -> list[bytes]:
    return [b"%04d" % n for n in range(first, last)]


def texts(first: int, last: int) -> list[str]:
    return [value.decode() for value in values(first, last)]


async def test_no_row_means_the_earliest_record_and_a_new_member_goes_on_where_the_last_one_committed(
    broker, consumer, effects, offsets, running
):
    await broker.create(TOPIC)
    await broker.write(TOPIC, values(0, 10))
    first = running.start(consumer().run())
    await eventually(lambda: _equals(effects, texts(0, 10)))
    await running.cancel(first)
    await broker.write(TOPIC, values(10, 20))
    running.start(consumer().run())
    await eventually(lambda: _equals(effects, texts(0, 20)))
    assert await offsets() == [(0, 20, 2)]


async def test_no_batch_holds_more_bytes_than_it_may(broker, consumer, effects, running):
    """What was fetched at once comes in several; a record that is larger than a batch has one for itself."""
    sizes: list[int] = []

    async def store_first(connection, records):
        sizes.append(sum(len(record.value) for record in records))
        rows = [{"partition": 0, "at": record.offset, "value": record.value[:4].decode()} for record in records]
        await connection.execute(INSERT, rows)

    await broker.create(TOPIC)
    large = [value + bytes(300_000 if value == b"0100" else 40_000) for value in values(0, 200)]
    await broker.write(TOPIC, large)
    running.start(consumer(store_first, max_bytes=200_000, max_wait_ms=20, contiguous=True).run())
    await eventually(lambda: _equals(effects, texts(0, 200)))
    assert sorted(sizes)[-2:] == [4 * 40_004, 300_004]


async def _equals(read, expected) -> bool:
    return await read() == expected


async def test_what_the_group_committed_to_kafka_is_never_read(broker, consumer, effects, engine, running):
    topic = await broker.create(TOPIC)
    await broker.write(TOPIC, values(0, 10))
    await _commit_to_kafka(broker, topic, 8)
    await _stored(engine, broker, topic, 5)
    running.start(consumer().run())
    await eventually(lambda: _equals(effects, texts(5, 10)))


async def test_a_stale_owner_changes_nothing(broker, consumer, effects, engine, running, offsets):
    topic = await broker.create(TOPIC)
    await broker.write(TOPIC, values(0, 5))
    entered, released = asyncio.Event(), asyncio.Event()

    async def slow(connection, records):
        await store(connection, records)
        if not entered.is_set():
            entered.set()
            await released.wait()

    running.start(consumer(slow).run())
    await asyncio.wait_for(entered.wait(), 30)
    # Another member claims the partition, applies the first three records and commits.
    async with engine.begin() as connection:
        await connection.execute(INSERT, [{"partition": 0, "at": n, "value": f"{n:04d}"} for n in range(3)])
        await connection.execute(
            text(
                "UPDATE system.consumer_offset SET next_offset = 3, owner_epoch = owner_epoch + 1 WHERE topic = :topic"
            ),
            {"topic": topic},
        )
    released.set()
    await eventually(lambda: _equals(effects, texts(0, 5)))
    assert await offsets() == [(0, 5, 3)]


async def test_an_owner_whose_partition_was_claimed_drops_its_batch_even_if_nothing_was_read_since(
    broker, consumer, effects, engine, running, offsets
):
    await broker.create(TOPIC)
    await broker.write(TOPIC, values(0, 5))
    entered, released, calls = asyncio.Event(), asyncio.Event(), []

    async def slow(connection, records):
        await store(connection, records)
        calls.append(len(records))
        entered.set()
        await released.wait()

    running.start(consumer(slow, max_wait_ms=300).run())
    await asyncio.wait_for(entered.wait(), 30)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE system.consumer_offset SET owner_epoch = owner_epoch + 1"))
    released.set()
    await eventually(lambda: _equals(offsets, [(0, 5, 3)]))
    assert await effects() == texts(0, 5)
    assert len(calls) == 2


async def test_partitions_are_paused_until_they_are_claimed(broker, consumer, effects, running):
    topic = await broker.create(TOPIC)
    await broker.write(TOPIC, values(0, 5))
    paused = []

    async def look(partitions):
        paused.append((partitions, worker._member._consumer.paused()))

    worker = consumer(on_assigned=look)
    running.start(worker.run())
    await eventually(lambda: _equals(effects, texts(0, 5)))
    assert paused == [({TopicPartition(topic, 0)}, {TopicPartition(topic, 0)})]
    assert worker._member._consumer.paused() == set()


async def test_a_commit_that_was_applied_although_it_looked_lost_is_not_repeated(
    broker, consumer, effects, monkeypatch, running
):
    await broker.create(TOPIC)
    await broker.write(TOPIC, values(0, 5))
    commit = TransactionalConsumer._commit
    lost: list[object] = []

    async def commit_and_lose_the_answer(self, batch, *, careful):
        before = {partition: mine.next_offset for partition, mine in batch.claims.items()}
        await commit(self, batch, careful=careful)
        if not lost:
            lost.append(batch)
            for partition, offset in before.items():
                batch.claims[partition].next_offset = offset
            raise ConnectionResetError

    monkeypatch.setattr(TransactionalConsumer, "_commit", commit_and_lose_the_answer)
    running.start(consumer().run())
    await eventually(lambda: _equals(effects, texts(0, 5)))
    await broker.write(TOPIC, values(5, 8))
    await eventually(lambda: _equals(effects, texts(0, 8)), within=60)


async def test_an_offset_out_of_range_stops_its_partition_only(broker, consumer, effects, engine, running):
    topic = await broker.create(TOPIC, partitions=2)
    await broker.write(TOPIC, values(0, 5), partition=0)
    await broker.write(TOPIC, values(5, 8), partition=1)
    await _stored(engine, broker, topic, 400)
    worker = consumer()
    running.start(worker.run())
    await eventually(lambda: _equals(effects, texts(5, 8)))
    await eventually(lambda: worker.stopped_partitions)
    assert list(worker.stopped_partitions) == [TopicPartition(topic, 0)]
    assert not worker.ready
    await broker.write(TOPIC, values(8, 9), partition=1)
    await broker.write(TOPIC, values(8, 9), partition=0)
    await eventually(lambda: _equals(effects, texts(5, 9)))


async def test_records_deleted_before_they_were_read_stop_the_partition(broker, consumer, effects, engine, running):
    topic = await broker.create(TOPIC)
    await broker.write(TOPIC, values(0, 10))
    await _stored(engine, broker, topic, 2)
    await broker.delete_before(TOPIC, 5)
    worker = consumer()
    running.start(worker.run())
    await eventually(lambda: worker.stopped_partitions)
    assert await effects() == []


async def test_transaction_markers_are_passed_and_a_contiguous_consumer_takes_them_for_a_loss(
    broker, consumer, effects, offsets, running
):
    await broker.create(TOPIC)
    await broker.write_in_transaction(TOPIC, values(0, 3))
    tolerant = running.start(consumer().run())
    await eventually(lambda: _equals(effects, texts(0, 3)))
    await eventually(lambda: _equals(offsets, [(0, 4, 1)]))
    await running.cancel(tolerant)
    await broker.write_in_transaction(TOPIC, values(3, 5))
    await broker.write(TOPIC, values(5, 6))
    strict = consumer(contiguous=True)
    running.start(strict.run())
    await eventually(lambda: strict.stopped_partitions)
    assert await effects() in (texts(0, 3), texts(0, 5))


async def test_waits_while_postgresql_is_away_and_goes_on(broker, consumer, effects, postgres_away, running):
    await broker.create(TOPIC)
    await broker.write(TOPIC, values(0, 3))
    running.start(consumer().run())
    await eventually(lambda: _equals(effects, texts(0, 3)))
    async with postgres_away():
        await broker.write(TOPIC, values(3, 6))
        await asyncio.sleep(1)  # the time of being away, not a synchronisation
    await eventually(lambda: _equals(effects, texts(0, 6)), within=60)


@pytest.mark.parametrize("error", [OSError, RepeatBatch])
async def test_a_handler_that_uses_the_raw_driver_is_inside_the_transaction(broker, consumer, effects, running, error):
    await broker.create(TOPIC)
    await broker.write(TOPIC, values(0, 5))
    attempts = []

    async def copy(connection, records):
        driver = (await connection.get_raw_connection()).driver_connection
        rows = [(record.partition, record.offset, record.value.decode()) for record in records]
        await driver.copy_records_to_table("effect", records=rows)
        attempts.append(len(rows))
        if len(attempts) == 1:
            raise error("after the effect, before the commit")

    running.start(consumer(copy).run())
    await eventually(lambda: _equals(effects, texts(0, 5)))
    assert len(attempts) >= 2


async def test_the_next_batch_is_read_while_the_handler_runs(broker, consumer, running):
    await broker.create(TOPIC)
    await broker.write(TOPIC, values(0, 10))
    entered, released, sizes = asyncio.Event(), asyncio.Event(), []

    async def slow(_connection, records):
        sizes.append(len(records))
        entered.set()
        await released.wait()

    worker = consumer(slow, max_records=10)
    running.start(worker.run())
    await asyncio.wait_for(entered.wait(), 30)
    await broker.write(TOPIC, values(10, 20))
    await eventually(lambda: worker._member._batch is not None and len(worker._member._batch.records) == 10)
    released.set()
    await eventually(lambda: sizes == [10, 10])


async def test_named_bad_records_become_dead_letters_in_the_same_transaction(
    broker, consumer, effects, engine, kafka, running
):
    topic = await broker.create(TOPIC)
    await broker.create(f"{TOPIC}.dlq.v1")
    await broker.write(TOPIC, [b"0000", b"bad 1", b"0002", b"bad 2", b"0004"])

    async def picky(connection, records):
        for record in records:
            if record.value.startswith(b"bad"):
                raise InvalidRecord(record, f"it is {record.value.decode()}")
        await store(connection, records)

    running.start(consumer(picky).run())
    await eventually(lambda: _equals(effects, ["0000", "0002", "0004"]))
    running.start(OutboxRelay("test", engine, kafka).run())
    letters = await broker.read(f"{TOPIC}.dlq.v1", 2)
    assert sorted(_essence(letter) for letter in letters) == [
        (TOPIC, 0, 1, "it is bad 1", "YmFkIDE="),
        (TOPIC, 0, 3, "it is bad 2", "YmFkIDI="),
    ]
    assert topic.endswith(TOPIC)


async def test_a_batch_that_the_database_refuses_is_bisected_to_the_record_that_fails_alone(
    broker, consumer, effects, engine, running
):
    await broker.create(TOPIC)
    await broker.write(TOPIC, [*values(0, 20), b"nul \0 here", *values(21, 40)])
    running.start(consumer(max_wait_ms=300).run())
    await eventually(lambda: _equals(effects, texts(0, 20) + texts(21, 40)))
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT key, topic FROM system.outbox"))
        assert [tuple(row) for row in rows] == [(f"{TOPIC}/0/20", f"{TOPIC}.dlq.v1")]


async def test_a_huge_bad_record_becomes_a_letter_without_its_value(broker, consumer, effects, engine, running):
    await broker.create(TOPIC)
    await broker.write(TOPIC, [b"\0" * 900_000, b"0001"])
    running.start(consumer(max_wait_ms=300).run())
    await eventually(lambda: _equals(effects, ["0001"]))
    async with engine.connect() as connection:
        letter = json.loads(await connection.scalar(text("SELECT payload FROM system.outbox")))
    assert (letter["value"], letter["value_bytes"], letter["offset"]) == (None, 900_000, 0)


async def test_a_consumer_to_which_nearly_all_looks_bad_stops_and_drains_nothing(
    broker, consumer, effects, engine, offsets
):
    await broker.create(TOPIC)
    await broker.write(TOPIC, [b"0000", *[b"bad"] * 99])

    async def wrong_deployment(connection, records):
        for record in records:
            if record.value == b"bad":
                raise InvalidRecord(record, "unknown field")
        await store(connection, records)

    with pytest.raises(TooManyInvalidRecords):
        await asyncio.wait_for(consumer(wrong_deployment, max_wait_ms=500).run(), 20)
    assert await effects() == []
    assert [row[:2] for row in await offsets()] == [(0, 0)]
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM system.outbox")) == 0


async def test_members_that_come_and_go_leave_no_gap_and_no_repetition(broker, consumer, effects, engine, running):
    await broker.create(TOPIC, partitions=4)
    assigned: list[int] = []

    async def rebuild(partitions):
        assigned.append(len(partitions))

    first = running.start(consumer(max_records=7, on_assigned=rebuild).run())
    for round_, partition in enumerate([0, 1, 2, 3] * 2):
        await broker.write(TOPIC, values(round_ * 50, round_ * 50 + 50), partition=partition)
        if round_ == 1:
            running.start(consumer(max_records=7, on_assigned=rebuild).run())
            await eventually(lambda: 2 in assigned)
        if round_ == 4:
            await running.cancel(first)
    await eventually(lambda: _count(effects, 400), within=60)
    assert sorted(await effects()) == texts(0, 400)


async def _count(read, expected: int) -> bool:
    return len(await read()) >= expected


def _essence(letter: ConsumerRecord) -> tuple:
    body = json.loads(letter.value)
    return body["topic"], body["partition"], body["offset"], body["reason"], body["value"]


async def _stored(engine, broker, topic: str, next_offset: int) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO system.consumer_offset VALUES (:group, :topic, 0, :next, 1)"),
            {"group": broker.settings.group("test"), "topic": topic, "next": next_offset},
        )


async def _commit_to_kafka(broker, topic: str, offset: int) -> None:
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(
        **broker.settings.client_options(), group_id=broker.settings.group("test"), enable_auto_commit=False
    ) as consumer:
        consumer.assign([partition])
        await consumer.commit({partition: offset})
