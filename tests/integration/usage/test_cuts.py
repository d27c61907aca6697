"""Rollups leave by lane, and a cut says where they are complete."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from broker import read_topic

from tenantry.testing import eventually
from usage_service.metering.worker import GROUP, TOPIC
from usage_service.publishing.cuts import CutKeeper

from .support import API_CALLS, event, producer

ROLLUPS = "usage.rollups.v1"


def is_cut(record) -> bool:
    return any(name == "type" and value == b"cut" for name, value in record.headers)


async def published(usage, cut_id: str) -> bool:
    response = await usage.http.get(f"/v1/cuts/{cut_id}", headers=usage.service)
    return response.json()["state"] == "published"


async def test_the_cut_follows_every_rollup_it_covers(usage, tenant_a, tenant_b):
    await usage.put_meter("api-calls", API_CALLS)
    async with usage.metering(), usage.relaying():
        for tenant in (tenant_a, tenant_b):
            await usage.send(*[event(tenant, n) for n in range(30)])
        cut = (await usage.http.post("/v1/cuts", headers=usage.service)).json()
        assert cut["state"] == "waiting"
        assert sum(cut["offsets"].values()) == 60
        await eventually(lambda: published(usage, cut["id"]), within=60)
        records = await read_topic(usage.kafka, ROLLUPS)
    cuts = [record for record in records if is_cut(record)]
    assert [record.partition for record in cuts] == list(range(12))
    assert msgspec.json.decode(cuts[3].value) == {
        "cut_id": cut["id"],
        "offsets": cut["offsets"],
        "partition": 3,
        "partitions": 12,
    }
    before = {record.partition: record.offset for record in cuts}
    covered: dict[bytes, dict] = {}
    for record in records:
        if not is_cut(record) and record.offset < before[record.partition]:
            covered[record.key] = msgspec.json.decode(record.value)
    assert sum(int(rollup["count"]) for rollup in covered.values()) == 60
    one = next(iter(covered.values()))
    assert (one["meter"], one["aggregation"]) == ("api-calls", "count")
    assert one["group"] == {"method": "GET", "path": "/a"}
    assert one["granularity"] == "hour"


async def test_a_repeated_request_is_one_cut(usage):
    headers = usage.service | {"Idempotency-Key": "k-1"}
    first, again = [await usage.http.post("/v1/cuts", headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert len(await usage.fetch("SELECT id FROM system.cut")) == 1


async def test_a_cut_waits_for_what_is_not_counted(usage, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    async with usage.relaying():
        await usage.send(event(tenant_a, 1))
        cut = (await usage.http.post("/v1/cuts", headers=usage.service)).json()
        idle = (await usage.http.post("/v1/cuts", headers=usage.service)).json()
        await take_three_turns(usage)
        assert await usage.fetch("SELECT id FROM system.cut WHERE state <> 'waiting'") == []
        async with usage.metering():
            await eventually(lambda: published(usage, cut["id"]), within=60)
            await eventually(lambda: published(usage, idle["id"]), within=60)


async def take_three_turns(usage) -> None:
    """What the keeper of cuts does now and then."""
    keeper = CutKeeper(usage.databases.system, usage.kafka, group=GROUP, topic=TOPIC)
    async with producer(usage.kafka) as sender, usage.databases.system.connect() as opened:
        connection = await opened.execution_options(isolation_level="AUTOCOMMIT")
        for _ in range(3):
            await keeper.turn(connection, sender)


async def test_a_cut_without_any_event_is_published_at_once(usage):
    async with usage.relaying():
        cut = (await usage.http.post("/v1/cuts", headers=usage.service)).json()
        await eventually(lambda: published(usage, cut["id"]), within=60)


async def test_a_relay_that_died_between_publishing_and_clearing_repeats_itself(usage, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    async with usage.metering():
        await usage.send(event(tenant_a, 1))
        await eventually(usage.counted, within=60)
    queue = await usage.fetch("SELECT * FROM system.rollup_change")
    assert queue
    async with usage.relaying():
        await eventually(lambda: cleared(usage), within=60)
        async with usage.database.connect() as connection:
            await connection.copy_records_to_table(
                "rollup_change", schema_name="system", records=[tuple(row) for row in queue]
            )
        await eventually(lambda: cleared(usage), within=60)
        records = await read_topic(usage.kafka, ROLLUPS)
    assert len(records) == 2
    assert records[0].value == records[1].value


async def cleared(usage) -> bool:
    return not await usage.fetch("SELECT FROM system.rollup_change")


async def test_the_watermark_passes_idle_partitions(usage, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    start = datetime.now(UTC)
    span = {"from": (start - timedelta(hours=1)).isoformat(), "to": (start + timedelta(hours=1)).isoformat()}

    async def passed() -> bool:
        watermark = (await usage.query(tenant_a, "api-calls", **span))["watermark"]
        return watermark is not None and datetime.fromisoformat(watermark) > start

    async with usage.metering(), usage.relaying():
        await usage.send(event(tenant_a, 1))
        await eventually(passed, within=60)
