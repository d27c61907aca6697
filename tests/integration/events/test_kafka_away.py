"""With the broker away everybody waits, loses nothing and goes on by itself."""

import asyncio

from sqlalchemy import text

from tenantry.events import OutboxRelay, StateReader, TransactionalConsumer, append_outbox
from tenantry.testing import eventually

TOPIC = "platform.state.v1"


async def test_relay_consumer_and_state_go_on_when_it_comes_back(network, broker, kafka, engine, running):
    await broker.create(TOPIC)
    stored: list[bytes] = []
    seen: list[bytes | None] = []

    async def handle(connection, records):
        await connection.execute(text("SELECT 1"))
        stored.extend(record.key for record in records)

    reader = StateReader(kafka, [TOPIC], lambda record: seen.append(record.key))
    running.start(OutboxRelay("svc", engine, kafka).run())
    running.start(TransactionalConsumer(kafka=kafka, engine=engine, group="g", topics=[TOPIC], handle=handle).run())
    try:
        await reader.start()
        await _append(engine, "before")
        await eventually(lambda: stored == seen == [b"before"], within=60)
        await network.cut()
        await _append(engine, "during")
        # The copy may be stale now, and says so.
        await eventually(lambda: reader.lag_seconds > 2)
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM system.outbox")) == 1
        await network.mend()
        await eventually(lambda: stored == seen == [b"before", b"during"], within=40)
        await eventually(lambda: reader.lag_seconds < 2)
    finally:
        await reader.stop()


async def test_a_reader_that_starts_with_the_broker_away_waits_for_it(network, broker, kafka):
    await broker.create(TOPIC)
    await broker.write(TOPIC, [b"1"])
    await network.cut()
    seen = []
    reader = StateReader(kafka, [TOPIC], lambda record: seen.append(record.value))
    starting = asyncio.create_task(reader.start())
    try:
        await asyncio.sleep(0.3)  # the time of being away, not a synchronisation
        assert not starting.done()
        await network.mend()
        await asyncio.wait_for(starting, 20)
        assert seen == [b"1"]
    finally:
        await reader.stop()


async def _append(engine, key: str) -> None:
    async with engine.begin() as connection:
        await append_outbox(connection, topic=TOPIC, key=key, type="t.v1", data={}, version=1)
