"""A relay that ends in the middle of publishing, and a topic that has lost what was published."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from broker import read_topic

from tenantry.testing import eventually
from usage_service.publishing import republishing

from .support import BANDWIDTH, event

REPUBLISH = "/v1/rollups/republish"


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


async def test_what_the_topic_has_lost_is_published_again(usage, tenant_a, tenant_b, monkeypatch):
    monkeypatch.setattr(republishing, "_PAGE", 2)
    await usage.put_meter("bandwidth", BANDWIDTH)
    # Five hours of one tenant and one of the other.
    await usage.send(*[event(tenant_a, hour, time=instant_of(hour)) for hour in range(5)], event(tenant_b, 9))

    async def records() -> list[tuple[bytes, bytes]]:
        return [(each.key, each.value) for each in await read_topic(usage.kafka, "usage.rollups.v1")]

    async with usage.metering():
        await eventually(usage.counted, within=60)
    async with usage.relaying():
        first = await eventually(lambda: of_length(records, 6), within=30, interval=0.3)
        assert await republish(usage) == [2, 2, 2]
        second = await eventually(lambda: of_length(records, 12), within=30, interval=0.3)
        assert sorted(second) == sorted([*first, *first])
        assert await republish(usage, tenant_id=str(tenant_b.id)) == [1]
        third = await eventually(lambda: of_length(records, 13), within=30, interval=0.3)
        assert Counter(third) - Counter(second) == Counter(key for key in first if str(tenant_b.id).encode() in key[0])


async def test_it_waits_while_much_is_to_be_published(usage, tenant_a, monkeypatch):
    monkeypatch.setattr(republishing, "_MOST_WAITING", 0)
    await usage.put_meter("bandwidth", BANDWIDTH)
    await usage.send(event(tenant_a, 1))
    async with usage.metering():
        await eventually(usage.counted, within=60)  # and nobody publishes
    answer = await usage.http.post(REPUBLISH, json={}, headers=usage.operator)
    assert (answer.status_code, answer.json()["queued"]) == (202, 0)
    assert answer.json()["next_cursor"]


@pytest.mark.parametrize("body", [{"cursor": "x"}, {"tenant_id": "acme"}, {"tenants": []}])
async def test_what_cannot_be_asked_is_refused(usage, body):
    assert (await usage.http.post(REPUBLISH, json=body, headers=usage.operator)).status_code in {400, 422}
    assert (await usage.http.post(REPUBLISH, json={}, headers=usage.service)).status_code == 403


async def republish(usage, **body: str) -> list[int]:
    """How many were queued by page."""
    queued = []
    while True:
        response = await usage.http.post(REPUBLISH, json=body, headers=usage.operator)
        assert response.status_code == 202, response.text
        page = response.json()
        queued.append(page["queued"])
        if page["next_cursor"] is None:
            return [count for count in queued if count]
        body["cursor"] = page["next_cursor"]


async def of_length(records, count: int):
    found = await records()
    return found if len(found) >= count else None


def instant_of(hour: int) -> str:
    return (datetime.now(UTC) - timedelta(hours=1 + hour)).isoformat()
