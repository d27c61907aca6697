"""A relay that ends in the middle of publishing: what was queued is published by the next one."""

from __future__ import annotations

import msgspec
from aiokafka import AIOKafkaProducer
from broker import read_topic

from tenantry.testing import eventually

from .support import BANDWIDTH, event


async def test_what_was_not_committed_to_kafka_is_published_by_the_next_holder(usage, tenant_a, monkeypatch):
    commit = AIOKafkaProducer.commit_transaction
    ended: list[AIOKafkaProducer] = []

    async def end_before_the_first_commit(producer):
        if not ended:
            ended.append(producer)
            raise ConnectionError("the process ends here")
        await commit(producer)

    monkeypatch.setattr(AIOKafkaProducer, "commit_transaction", end_before_the_first_commit)
    await usage.put_meter("bandwidth", BANDWIDTH)
    await usage.send(*[event(tenant_a, number) for number in range(5)])

    async def published() -> list[str]:
        records = await read_topic(usage.kafka, "usage.rollups.v1")
        return [msgspec.json.decode(record.value)["sum"] for record in records]

    async with usage.metering():
        await eventually(usage.counted, within=60)
        async with usage.relaying():
            assert await eventually(published, within=30, interval=0.3) == ["50"]
    assert ended
