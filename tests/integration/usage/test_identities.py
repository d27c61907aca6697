"""What workers remember of stored events spares look-ups, and never lets a copy of another day through."""

from __future__ import annotations

import json

import pytest
from aiokafka import ConsumerRecord

from tenantry.events import partition_key
from usage_service.metering.identities import KnownIdentities
from usage_service.metering.worker import GROUP, TOPIC

from .support import API_CALLS, event

TUESDAY, WEDNESDAY, NEXT_TUESDAY = "2026-11-17T23:00:00Z", "2026-11-18T01:00:00Z", "2026-11-24T01:00:00Z"


@pytest.fixture
async def metered(usage):
    await usage.put_meter("api-calls", API_CALLS)
    for partition in (0, 1):
        held = (usage.kafka.group(GROUP), usage.kafka.topic(TOPIC), partition)
        await usage.fetch("INSERT INTO system.consumer_offset VALUES ($1, $2, $3, 0, 1)", *held)
    return usage


def known(usage, **options) -> KnownIdentities:
    return KnownIdentities(group=usage.kafka.group(GROUP), topic=usage.kafka.topic(TOPIC), **options)


def record(tenant, number: int, time: str, *, partition: int = 0, offset: int) -> ConsumerRecord:
    key, value = partition_key(tenant.id), json.dumps(event(tenant, number, time=time)).encode()
    return ConsumerRecord(TOPIC, partition, offset, 1_800_000_000_000, 1, key, value, None, len(key), len(value), ())


async def handle(usage, worker, *records) -> None:
    async with usage.databases.system.begin() as connection:
        await worker.handle(connection, records)


async def counted(usage) -> int:
    [row] = await usage.fetch("SELECT sum(count)::int AS count FROM pool.usage_rollup")
    return row["count"]


async def test_what_another_owner_stored_meanwhile_is_known(metered, tenant_a):
    ours, others = metered.worker(), metered.worker()
    await handle(metered, ours, record(tenant_a, 1, TUESDAY, offset=0))
    await metered.fetch("UPDATE system.consumer_offset SET owner_epoch = 2")
    await handle(metered, others, record(tenant_a, 2, TUESDAY, offset=1))
    await metered.fetch("UPDATE system.consumer_offset SET owner_epoch = 3")
    await handle(
        metered,
        ours,
        record(tenant_a, 2, WEDNESDAY, offset=2),
        record(tenant_a, 1, WEDNESDAY, offset=3),
        record(tenant_a, 3, WEDNESDAY, offset=4),
    )
    assert await counted(metered) == 3


async def test_what_a_worker_finds_when_it_starts_is_known(metered, tenant_a):
    many = [record(tenant_a, number, TUESDAY, offset=number) for number in range(3_000)]
    await handle(metered, metered.worker(), *many)
    copies = [record(tenant_a, number, WEDNESDAY, offset=3_000 + number) for number in range(3_000)]
    await handle(metered, metered.worker(), *copies, record(tenant_a, 5_000, WEDNESDAY, offset=6_000))
    assert await counted(metered) == 3_001


async def test_no_filter_goes_while_a_batch_of_another_member_is_under_way(metered, tenant_a, tenant_b):
    """There is room for nothing: whatever no batch holds is forgotten when one ends."""
    shared = known(metered, most_keys=0)
    one, two = (metered.worker(identities=shared) for _ in range(2))
    async with metered.databases.system.begin() as connection:
        await one.handle(connection, [record(tenant_a, 1, TUESDAY, offset=0)])
        # Of other days, and of the same one, which is loaded again without what is not committed where it has gone.
        await handle(metered, two, record(tenant_b, 1, NEXT_TUESDAY, partition=1, offset=0))
        await handle(metered, two, record(tenant_b, 2, TUESDAY, partition=1, offset=1))
    shared._most_keys = 1_000_000_000  # what is there now stays
    await handle(metered, one, record(tenant_a, 1, WEDNESDAY, offset=1), record(tenant_a, 2, WEDNESDAY, offset=2))
    assert await counted(metered) == 4


async def test_members_load_a_day_once_and_again_only_what_has_a_new_owner(metered, tenant_a, tenant_b, monkeypatch):
    shared = known(metered)
    one, two = (metered.worker(identities=shared) for _ in range(2))
    loads = []
    load = shared._load

    async def counting(connection, missing):
        loads.append(list(missing.values()))
        await load(connection, missing)

    monkeypatch.setattr(shared, "_load", counting)
    await handle(metered, one, record(tenant_a, 1, TUESDAY, offset=0))
    await handle(metered, two, record(tenant_b, 1, TUESDAY, partition=1, offset=0))
    assert loads == [[[0]] * 3]  # the day and its neighbours
    loads.clear()
    await metered.fetch("UPDATE system.consumer_offset SET owner_epoch = 2 WHERE partition = 1")
    await handle(metered, one, record(tenant_a, 2, TUESDAY, offset=1))
    assert loads == []
    await handle(metered, two, record(tenant_b, 2, TUESDAY, partition=1, offset=1))
    assert loads == [[[1]] * 3]
    assert len({each.capacity for each in shared._filters.values()}) == 1  # what was known was not counted again
