"""The relay: order per key, nothing lost, nobody but the holder of the lane publishes."""

import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka.errors import KafkaError, ProducerFenced
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry._context import Binding
from tenantry.events import (
    LANES,
    InvalidRecord,
    OutboxEvent,
    OutboxRelay,
    append_outbox,
    append_outbox_many,
    decode,
    lane_of,
)
from tenantry.testing import eventually

TOPIC = "platform.state.v1"
TENANT_STATE = "tenant.state.v1"
TENANT = UUID("0190f3a0-0000-7000-8000-000000000001")


def keys_of_lane(lane: int, count: int) -> list[str]:
    return [key for key in (f"key-{n}" for n in range(1000)) if lane_of(key) == lane][:count]


@pytest.fixture
def append(engine):
    async def append(key: str, version: int, *, data="version", tenant_id=None, topic=TOPIC) -> None:
        async with AsyncSession(engine) as session, session.begin():
            value = {"version": version} if data == "version" else data
            await append_outbox(
                session, topic=topic, key=key, type="t.v1", data=value, tenant_id=tenant_id, version=version
            )

    return append


@pytest.fixture
def left(engine):
    async def left() -> int:
        async with engine.connect() as connection:
            return await connection.scalar(text("SELECT count(*) FROM system.outbox"))

    return left


def published(records) -> list[tuple[str, int]]:
    return [(record.key.decode(), decode(record).version) for record in records]


async def test_events_arrive_as_they_were_appended_and_leave_the_table(broker, kafka, engine, append, left, running):
    await broker.create(TENANT_STATE)
    await append(
        str(TENANT), 7, data={"tenant_id": TENANT, "name": "Zoë", "n": 1}, tenant_id=TENANT, topic=TENANT_STATE
    )
    await append(str(TENANT), 8, data=None, tenant_id=TENANT, topic=TENANT_STATE)
    running.start(OutboxRelay("svc", engine, kafka).run())
    document, tombstone = [decode(record) for record in await broker.read(TENANT_STATE, 2)]
    assert document.data == {"tenant_id": str(TENANT), "name": "Zoë", "n": 1}
    assert (document.tenant_id, document.version, document.source, document.type) == (TENANT, 7, "svc", "t.v1")
    assert (tombstone.data, tombstone.version) == (None, 8)
    await eventually(lambda: _is(left, 0))


async def test_an_event_says_which_request_and_trace_it_comes_from(broker, kafka, engine, append, running):
    await broker.create(TOPIC)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    binding = Binding("req-1", trace)
    await append("one", 1)
    async with engine.begin() as connection:
        event = OutboxEvent(topic=TOPIC, key="many", type="t.v1", data={}, version=1)
        await append_outbox_many(connection, [event])
    binding.release()
    await append("none", 1)
    running.start(OutboxRelay("svc", engine, kafka).run())
    found = {record.key.decode(): dict(decode(record).headers) for record in await broker.read(TOPIC, 3)}
    origin = {"correlationid": "req-1", "traceparent": trace}
    assert found == {"one": origin, "many": origin, "none": {}}


async def test_a_transaction_that_began_first_and_commits_last_is_not_skipped(
    broker, kafka, engine, append, left, running
):
    await broker.create(TOPIC)
    early, late = keys_of_lane(0, 2)
    async with AsyncSession(engine) as session:
        await append_outbox(session, topic=TOPIC, key=early, type="t.v1", data={}, version=1)
        await append(late, 1)
        running.start(OutboxRelay("svc", engine, kafka).run())
        await eventually(lambda: _is(left, 0))
        await session.commit()
    assert published(await broker.read(TOPIC, 2)) == [(late, 1), (early, 1)]


async def test_order_is_that_of_versions_whatever_the_order_of_ids(broker, kafka, engine, append, running):
    await broker.create(TOPIC)
    key, other = keys_of_lane(1, 2)
    for version in (3, 1, 2):
        await append(key, version)
        await append(other, version)
    running.start(OutboxRelay("svc", engine, kafka).run())
    events = published(await broker.read(TOPIC, 6))
    assert [version for name, version in events if name == key] == [1, 2, 3]
    assert [version for name, version in events if name == other] == [1, 2, 3]


async def test_a_relay_killed_before_the_delete_publishes_again_in_order(
    broker, kafka, engine, append, left, monkeypatch, running
):
    await broker.create(TOPIC)
    (key,) = keys_of_lane(0, 1)
    for version in (1, 2):
        await append(key, version)
    send = OutboxRelay._send
    killed: list[object] = []

    async def send_and_die(self, *batch):
        await send(self, *batch)
        if not killed:
            killed.append(batch)
            raise asyncio.CancelledError

    monkeypatch.setattr(OutboxRelay, "_send", send_and_die)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(OutboxRelay("svc", engine, kafka, lanes=[0])._contend(0), 20)
    assert await left() == 2
    running.start(OutboxRelay("svc", engine, kafka, lanes=[0]).run())
    await eventually(lambda: _is(left, 0))
    assert published(await broker.read(TOPIC, 4)) == [(key, 1), (key, 2), (key, 1), (key, 2)]


async def test_records_of_a_topic_that_is_declared_once_are_published_once(
    broker, kafka, engine, append, left, monkeypatch, running
):
    alerts, lane = "usage.alerts.v1", lane_of(str(TENANT))
    for topic in (TOPIC, alerts):
        await broker.create(topic)
    monkeypatch.setattr("tenantry.events._sent_once.MOST", 2)
    for version in range(1, 6):
        await append(str(TENANT), version, topic=alerts, tenant_id=TENANT)
    (other,) = keys_of_lane(lane, 1)
    await append(other, 6)
    send = OutboxRelay._send
    dies = [True, False, True, True]

    async def send_and_die(self, *batch):
        await send(self, *batch)
        if dies and dies.pop(0):
            raise asyncio.CancelledError

    monkeypatch.setattr(OutboxRelay, "_send", send_and_die)
    for _ in range(3):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(OutboxRelay("usage", engine, kafka, lanes=[lane])._contend(lane), 20)
    running.start(OutboxRelay("usage", engine, kafka, lanes=[lane]).run())
    await eventually(lambda: _is(left, 0))
    assert published(await broker.read(alerts, 5)) == [(str(TENANT), version) for version in range(1, 6)]
    assert published(await broker.read(TOPIC, 3)) == [(other, 6)] * 3


async def test_a_lane_has_one_holder_and_the_next_one_takes_over(
    broker, kafka, engine, append, left, monkeypatch, running
):
    monkeypatch.setattr("tenantry.events._relay._CONTEND_SECONDS", 0.05)
    await broker.create(TOPIC)
    first, second = (OutboxRelay("svc", engine, kafka, lanes=[0]) for _ in range(2))
    sent = {first: 0, second: 0}
    _count_batches(first, sent)
    _count_batches(second, sent)
    (key,) = keys_of_lane(0, 1)
    holder = running.start(first.run())
    await append(key, 1)
    await eventually(lambda: _is(left, 0))
    running.start(second.run())
    await asyncio.sleep(0.5)  # several rounds of asking for the lane
    await append(key, 2)
    await eventually(lambda: _is(left, 0))
    assert sent == {first: 2, second: 0}
    await running.cancel(holder)
    await append(key, 3)
    await eventually(lambda: _is(left, 0))
    assert sent == {first: 2, second: 1}


async def test_a_holder_that_lost_the_lane_cannot_publish(
    broker, kafka, engine, append, left, database, monkeypatch, running
):
    """It has read version 1 when its connection dies; the next holder publishes 1 and 2; its late 1 must not arrive."""
    await broker.create(TOPIC)
    (key,) = keys_of_lane(0, 1)
    stale = OutboxRelay("svc", engine, kafka, lanes=[0])
    entered, released = asyncio.Event(), asyncio.Event()
    outcome: list[KafkaError | None] = []
    send = stale._send

    async def late(*batch):
        if not entered.is_set():
            entered.set()
            await released.wait()
            try:
                await send(*batch)
            except KafkaError as error:
                outcome.append(error)
                raise
            outcome.append(None)
        else:
            await send(*batch)

    monkeypatch.setattr(stale, "_send", late)
    await append(key, 1)
    running.start(stale.run())
    await asyncio.wait_for(entered.wait(), 20)
    await _cut_lock_holder(database)
    running.start(OutboxRelay("svc", engine, kafka, lanes=[0]).run())
    await append(key, 2)
    await eventually(lambda: _is(left, 0), within=60)
    released.set()
    await eventually(lambda: outcome)
    assert isinstance(outcome[0], ProducerFenced)
    assert published(await broker.read(TOPIC, 3, within=2)) == [(key, 1), (key, 2)]


async def test_goes_on_when_postgresql_comes_back(broker, kafka, engine, append, left, postgres_away, running):
    await broker.create(TOPIC)
    running.start(OutboxRelay("svc", engine, kafka).run())
    await append("a", 1)
    await eventually(lambda: _is(left, 0))
    async with postgres_away():
        await asyncio.sleep(0.5)  # the time of being away, not a synchronisation
    await append("a", 2)
    await eventually(lambda: _is(left, 0), within=60)
    assert published(await broker.read(TOPIC, 2)) == [("a", 1), ("a", 2)]


async def test_a_notification_wakes_the_lane(broker, kafka, engine, append, left, monkeypatch, running):
    monkeypatch.setattr("tenantry.events._relay._POLL_SECONDS", 30.0)
    await broker.create(TOPIC)
    running.start(OutboxRelay("svc", engine, kafka).run())
    await append("a", 1)
    await eventually(lambda: _is(left, 0))
    await append("a", 2)
    await eventually(lambda: _is(left, 0))


async def test_a_payload_that_kafka_would_refuse_is_refused_before_it_blocks_the_lane(append):
    with pytest.raises(ValueError, match="at most 900000"):
        await append("a", 1, data={"text": "x" * 900_000})


def test_keys_spread_over_all_lanes():
    assert {lane_of(str(uuid4())) for _ in range(200)} == set(range(LANES))


async def test_a_value_of_another_tenant_than_its_header_is_invalid(broker, kafka, engine, append, running):
    await broker.create(TOPIC)
    await append(str(TENANT), 1, data={"tenant_id": uuid4()}, tenant_id=TENANT)
    running.start(OutboxRelay("svc", engine, kafka).run())
    (record,) = await broker.read(TOPIC, 1)
    with pytest.raises(InvalidRecord, match="tenant_id of the value"):
        decode(record)


async def _is(read, expected) -> bool:
    return await read() == expected


def _count_batches(relay, sent) -> None:
    send = relay._send

    async def counted(*batch):
        sent[relay] += 1
        await send(*batch)

    relay._send = counted


async def _cut_lock_holder(database) -> None:
    admin = await asyncpg.connect(database.admin_url)
    try:
        cut = await admin.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database ="
            " (SELECT oid FROM pg_database WHERE datname = $1)",
            database.name,
        )
        assert len(cut) == 1
    finally:
        await admin.close()
