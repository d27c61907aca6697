from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from aiokafka import ConsumerRecord

from tenantry.events import partition_key
from tenantry.testing import eventually
from usage_service.metering import events
from usage_service.metering.worker import GROUP, TOPIC

from .support import API_CALLS, BANDWIDTH, event


async def test_events_are_counted_once_and_answered(usage, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    await usage.put_meter("bandwidth", BANDWIDTH)
    first = [event(tenant_a, n) for n in range(50)]
    # Twice in one request, again in another, and again with another time on the day before.
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    copies = [first[0], first[0], event(tenant_a, 1), event(tenant_a, 2, time=yesterday)]
    async with usage.metering():
        assert (await usage.send(*first, *copies)).json() == {"accepted": 54}
        assert (await usage.send(*first)).status_code == 202
        await eventually(usage.counted, within=60)
        span = {"from": (datetime.now(UTC) - timedelta(days=3)).isoformat(), "to": datetime.now(UTC).isoformat()}
        total = await usage.query(tenant_a, "api-calls", **span)
        assert [item["value"] for item in total["items"]] == ["50"]
        volume = await usage.query(tenant_a, "bandwidth", **span)
        assert [item["value"] for item in volume["items"]] == ["500"]


async def test_a_copy_on_a_neighbouring_day_never_counts_whenever_it_comes(usage, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    noon = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=5, hours=12)
    span = {"from": (noon - timedelta(days=9)).isoformat(), "to": (noon + timedelta(days=9)).isoformat()}

    def copy(days: int) -> dict:
        return event(tenant_a, 1, time=(noon + timedelta(days=days)).isoformat())

    # Each in a batch of its own, the last of them through workers that have just started.
    async with usage.metering():
        for days in (0, 1, -1, 0):
            await usage.send(copy(days))
            await eventually(usage.counted, within=60)
    async with usage.metering():
        await usage.send(copy(1), copy(-1))
        await eventually(usage.counted, within=60)
        assert [item["value"] for item in (await usage.query(tenant_a, "api-calls", **span))["items"]] == ["1"]
        # Outside the window of every copy that counted, it is another event.
        await usage.send(copy(2), copy(3), copy(4))
        await eventually(usage.counted, within=60)
    assert [item["value"] for item in (await usage.query(tenant_a, "api-calls", **span))["items"]] == ["3"]


async def test_a_copy_that_came_through_another_partition_never_counts(usage, tenant_a, monkeypatch):
    """What another owner stored since is in no filter here: the key refuses the batch, then only what is there."""
    monkeypatch.setattr(events, "_WARY", 1)
    await usage.put_meter("api-calls", API_CALLS)
    for partition in (0, 1):
        held = (usage.kafka.group(GROUP), usage.kafka.topic(TOPIC), partition)
        await usage.fetch("INSERT INTO system.consumer_offset VALUES ($1, $2, $3, 0, 1)", *held)
    batches = (
        (1, [(7, "a")]),  # from here on this worker remembers the day
        (0, [(1, "a"), (2, "a")]),
        (1, [(2, "a"), (3, "a")]),  # refused as a whole, then without the copy
        (1, [(1, "b"), (4, "a")]),  # skips what is there from the start
        (1, [(5, "a")]),  # trusts its filters again
        (1, [(1, "a"), (6, "a")]),
    )
    workers, offsets = {0: usage.worker(), 1: usage.worker()}, {0: 0, 1: 0}
    for partition, sent in batches:
        records = []
        for number, path in sent:
            records.append(record(tenant_a, partition, offsets[partition], number, path))
            offsets[partition] += 1
        async with usage.databases.system.begin() as connection:
            await workers[partition].handle(connection, records)
    [row] = await usage.fetch("SELECT sum(count)::int AS count FROM pool.usage_rollup")
    stored = await usage.fetch("SELECT event_id, kafka_partition FROM pool.usage_event ORDER BY 1")
    assert row["count"] == 7
    assert [tuple(each) for each in stored] == [
        ("e-1", 0),
        ("e-2", 0),
        *((f"e-{number}", 1) for number in range(3, 8)),
    ]
    [letter] = await usage.fetch("SELECT kind FROM pool.dead_letter")
    assert letter["kind"] == "conflict"


def record(tenant, partition: int, offset: int, number: int, path: str) -> ConsumerRecord:
    said = event(tenant, number, time="2026-11-20T10:00:00Z", data={"method": "GET", "path": path})
    key, value = partition_key(tenant.id), json.dumps(said).encode()
    return ConsumerRecord(TOPIC, partition, offset, 1_800_000_000_000, 1, key, value, None, len(key), len(value), ())
