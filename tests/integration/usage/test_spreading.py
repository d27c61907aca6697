"""Copies of one event under two keys of its tenant: whoever counts which of them, and whenever, they count once."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from contextlib import asynccontextmanager
from datetime import date, timedelta
from itertools import count

import asyncpg
import pytest
from aiokafka import ConsumerRecord
from sqlalchemy import text

from tenantry import uuid7
from tenantry.events import RepeatBatch, partition_key
from tenantry.testing import eventually
from usage_service.domain.corrections import CORRECTION
from usage_service.domain.instants import day_number
from usage_service.metering import rollups
from usage_service.metering.worker import GROUP, TOPIC
from usage_service.routing.repository import forget_gathered, settle

from .support import API_CALLS, event

MONDAY = date(2026, 11, 16)
NEIGHBOURS = (MONDAY, MONDAY + timedelta(days=1))
ADVANCE = text("UPDATE system.consumer_offset SET next_offset = :next WHERE partition = :partition")
RECEIVED = 1_800_000_000_000  # after all days of these tests

offsets = count()


@pytest.fixture
async def counting(usage):
    """Two workers that own a partition each; `count` is of the events that are counted."""
    await usage.put_meter("api-calls", API_CALLS)
    for partition in (0, 1):
        await usage.fetch(
            "INSERT INTO system.consumer_offset VALUES ($1, $2, $3, 0, 1)",
            usage.kafka.group(GROUP),
            usage.kafka.topic(TOPIC),
            partition,
        )
    return usage


def record(
    tenant, number: int, day: date = MONDAY, *, buckets: int = 1, partition: int = 0, **changes
) -> ConsumerRecord:
    sent = event(tenant, number, time=f"{day}T10:00:00Z", **changes)
    key = partition_key(tenant.id, buckets, sent["source"], sent["id"])
    value = json.dumps(sent).encode()
    return ConsumerRecord(TOPIC, partition, next(offsets), RECEIVED, 1, key, value, None, len(key), len(value), ())


async def total(usage) -> int:
    [[value]] = await usage.fetch("SELECT COALESCE(sum(count), 0)::int FROM pool.usage_rollup")
    return value


async def counted(usage) -> int:
    value = await total(usage)
    [[stored]] = await usage.fetch("SELECT count(*)::int FROM pool.usage_event")
    assert value == stored
    return value


async def spread(usage) -> list[tuple]:
    rows = await usage.fetch("SELECT buckets, mixed_since IS NOT NULL AS mixed, mixed_until FROM system.spread_tenant")
    return [tuple(row) for row in rows]


@asynccontextmanager
async def batch(usage, worker, *records, ends="commit"):
    """A batch that is handled and not committed; begun anew as its consumer would."""
    for attempt in range(2):
        async with usage.databases.system.connect() as connection:
            transaction = await connection.begin()
            try:
                await worker.handle(connection, list(records))
            except RepeatBatch:
                assert attempt == 0
                await transaction.rollback()
                continue
            for partition in {each.partition for each in records}:
                last = max(each.offset for each in records if each.partition == partition)
                await connection.execute(ADVANCE, {"partition": partition, "next": last + 1})
            yield
            await getattr(transaction, ends)()
            return


async def commit(usage, worker, *records) -> None:
    async with batch(usage, worker, *records):
        pass


async def waits(usage, number: int = 1) -> bool:
    [[waiting]] = await usage.fetch(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return waiting == number


async def test_a_copy_of_a_new_key_waits_for_the_batch_that_knows_of_none(counting, tenant_a):
    """Neighbouring days, two partitions, at the same time: neither filter knows the other copy."""
    old, new = counting.worker(), counting.worker()
    async with batch(counting, old, record(tenant_a, 1, NEIGHBOURS[0])):
        copy = record(tenant_a, 1, NEIGHBOURS[1], buckets=8, partition=1)
        other = asyncio.create_task(commit(counting, new, copy, record(tenant_a, 2, buckets=8, partition=1)))
        await eventually(lambda: waits(counting))
    await other
    assert await counted(counting) == 2
    assert await spread(counting) == [(1, True, None)]


@pytest.mark.parametrize(("first", "second"), [NEIGHBOURS, NEIGHBOURS[::-1]])
@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_while_keys_are_mixed_one_batch_at_a_time_goes_on(counting, tenant_a, first, second, ends):
    workers = [counting.worker(), counting.worker()]
    await commit(counting, workers[0], record(tenant_a, 0, buckets=8))
    raced = record(tenant_a, 1, second, buckets=8, partition=1)
    async with batch(counting, workers[0], record(tenant_a, 1, first), ends=ends):
        other = asyncio.create_task(commit(counting, workers[1], raced))
        await eventually(lambda: waits(counting))
    await other
    assert await counted(counting) == 2
    await commit(counting, workers[0], record(tenant_a, 1, first), record(tenant_a, 1, first, buckets=2))
    assert await counted(counting) == 2


async def test_once_settled_only_days_that_may_have_copies_are_looked_up(counting, tenant_a, tenant_b):
    first, second = counting.worker(), counting.worker()
    await commit(counting, first, record(tenant_a, 1), record(tenant_a, 2, NEIGHBOURS[1]), record(tenant_b, 1))
    await commit(counting, second, record(tenant_a, 3, buckets=8, partition=1))
    await settle(counting.databases.system, tenant_a.id, 8)
    assert await spread(counting) == [(8, False, NEIGHBOURS[1])]

    # A copy of what lies under the old key, on the last day that is compared with it.
    near, far = NEIGHBOURS[1] + timedelta(days=1), NEIGHBOURS[1] + timedelta(days=2)
    await commit(counting, second, record(tenant_a, 2, near, buckets=8, partition=1))
    assert await counted(counting) == 4
    # Nobody waits for anybody but for the row, or the first groups, of an hour: two batches are under way at once.
    await commit(counting, first, record(tenant_a, 4, near, buckets=8))
    await commit(counting, second, record(tenant_a, 5, far, buckets=8, partition=1))
    async with (
        batch(counting, first, record(tenant_a, 6, near, buckets=8), record(tenant_b, 2)),
        batch(counting, second, record(tenant_a, 7, far, buckets=8, partition=1)),
    ):
        pass
    assert await counted(counting) == 9
    assert second._spreads.looked_up == {tenant_a.id.bytes: day_number(near)}


@pytest.mark.parametrize("key", [1, 2, 16])
async def test_a_straggler_of_another_key_mixes_a_settled_tenant_again(counting, tenant_a, key):
    """A sender that was stopped for days, with the routing of then: later than every day that would be looked up."""
    first, second = counting.worker(), counting.worker()
    await commit(counting, first, record(tenant_a, 0, buckets=8))
    await settle(counting.databases.system, tenant_a.id, 8)
    later = [MONDAY + timedelta(days=20), MONDAY + timedelta(days=21)]
    number = next(n for n in range(9, 99) if record(tenant_a, n, buckets=8).key != record(tenant_a, n, buckets=key).key)
    async with batch(counting, first, record(tenant_a, number, later[0], buckets=8)):
        straggler = record(tenant_a, number, later[1], buckets=key, partition=1)
        other = asyncio.create_task(commit(counting, second, straggler))
        await eventually(lambda: waits(counting))
    await other
    assert await counted(counting) == 2
    assert await spread(counting) == [(8, True, MONDAY)]
    # And the other way about: what the straggler brings is known to whoever owns the right key.
    await commit(counting, second, record(tenant_a, number + 100, later[1], buckets=key, partition=1))
    await commit(counting, first, record(tenant_a, number + 100, later[0], buckets=8))
    await settle(counting.databases.system, tenant_a.id, 8)
    await commit(counting, first, record(tenant_a, number + 100, later[0], buckets=8))
    assert await counted(counting) == 3


async def test_tenants_that_were_never_spread_are_not_slowed(counting, tenant_a, tenant_b):
    """However their neighbour is mixed: no lock, no look-up, and batches side by side."""
    first, second = counting.worker(), counting.worker()
    await commit(counting, first, record(tenant_a, 0, buckets=8))
    async with (
        batch(counting, first, record(tenant_a, 1), record(tenant_b, 1)),
        batch(counting, second, record(tenant_b, 2, NEIGHBOURS[1], partition=1)),
    ):
        pass
    assert await counted(counting) == 4
    assert tenant_b.id.bytes not in first._spreads.looked_up


async def test_who_settles_waits_for_the_batches_that_are_under_way(counting, tenant_a):
    worker = counting.worker()
    await commit(counting, worker, record(tenant_a, 0, buckets=8))
    async with batch(counting, worker, record(tenant_a, 1, MONDAY + timedelta(days=9))):
        settling = asyncio.create_task(settle(counting.databases.system, tenant_a.id, 8))
        await eventually(lambda: waits(counting))
    await settling
    assert await spread(counting) == [(8, False, MONDAY + timedelta(days=9))]


@pytest.mark.parametrize(("parked", "settled"), [(1, 8), (8, 1)])
async def test_a_parked_record_keeps_its_key(counting, tenant_a, parked, settled):
    """It comes back when the tenant is known, and has settled under another key meanwhile."""
    first, second = counting.worker(), counting.worker()
    tenant = counting.state.directory.get(tenant_a.id)
    counting.state.directory.forget(tenant_a.id)
    await commit(counting, first, record(tenant_a, 1, NEIGHBOURS[0], buckets=parked))
    counting.state.directory.upsert(tenant)
    await commit(counting, second, record(tenant_a, 1, NEIGHBOURS[1], buckets=settled, partition=1))
    await settle(counting.databases.system, tenant_a.id, settled)
    await commit(counting, first, record(tenant_a, 2, buckets=settled))
    assert await counted(counting) == 2
    [(_, mixed, _)] = await spread(counting)
    assert mixed


async def test_groups_of_a_full_window_have_one_rollup_whoever_counts_them(counting, tenant_a):
    """A group that one worker gives its own rollup the other one must not put with the rest."""
    workers = [counting.worker(), counting.worker()]
    for worker in workers:
        worker._rollups._max_groups = 3

    numbers = count(1)

    def call(path: str, partition: int, day: date = MONDAY) -> ConsumerRecord:
        return record(tenant_a, next(numbers), day, buckets=8, partition=partition, data={"path": path})

    await commit(counting, workers[0], call("/0", 0))
    await settle(counting.databases.system, tenant_a.id, 8)
    # What the second one remembers is old when the first one has filled the window.
    for partition, path in ((1, "/0"), (0, "/1"), (0, "/2"), (1, "/3"), (0, "/3"), (1, "/2")):
        await commit(counting, workers[partition], call(path, partition))
    # Two that would each fill the last place.
    await commit(counting, workers[0], call("/a", 0, NEIGHBOURS[1]), call("/b", 0, NEIGHBOURS[1]))
    async with batch(counting, workers[0], call("/c", 0, NEIGHBOURS[1])):
        other = asyncio.create_task(commit(counting, workers[1], call("/d", 1, NEIGHBOURS[1])))
        await eventually(lambda: waits(counting))
    await other
    rows = await counting.fetch("SELECT groups, count::int FROM pool.usage_rollup ORDER BY window_start, groups")
    found = [(json.loads(row["groups"])["path"], row["count"]) for row in rows]
    assert found[:4] == [("/0", 2), ("/1", 1), ("/2", 2), ("__other__", 2)]
    assert found[4:] == [("/a", 1), ("/b", 1), ("/c", 1), ("__other__", 1)]


async def test_an_attempt_that_failed_leaves_no_groups_behind(counting, tenant_a, monkeypatch):
    """After it has decided which groups the hour gets, and before they are written, it loses its locks."""
    workers = [counting.worker(), counting.worker()]
    for worker in workers:
        worker._rollups._max_groups = 3
    numbers = count(1)

    def call(path: str, partition: int) -> ConsumerRecord:
        return record(tenant_a, next(numbers), buckets=8, partition=partition, data={"path": path})

    async def deadlock(*_arguments, **_named):
        raise asyncpg.DeadlockDetectedError

    await commit(counting, workers[0], call("/0", 0))
    await settle(counting.databases.system, tenant_a.id, 8)
    await commit(counting, workers[0], call("/0", 0))
    calls = [call("/1", 0), call("/2", 0)]
    with monkeypatch.context() as patch:
        patch.setattr(rollups, "copy_into", deadlock)
        with pytest.raises(asyncpg.DeadlockDetectedError):
            await commit(counting, workers[0], *calls)
    await commit(counting, workers[1], call("/3", 1), call("/4", 1))
    await commit(counting, workers[0], *calls)
    rows = await counting.fetch("SELECT groups, count::int FROM pool.usage_rollup ORDER BY groups")
    found = [(json.loads(row["groups"])["path"], row["count"]) for row in rows]
    assert found == [("/0", 2), ("/3", 1), ("/4", 1), ("__other__", 2)]


async def test_a_tenant_that_is_gathered_is_forgotten_when_no_copy_is_left(counting, tenant_a):
    worker = counting.worker()
    engine = counting.databases.system
    await commit(counting, worker, record(tenant_a, 0, buckets=8))
    await settle(engine, tenant_a.id, 1)
    await forget_gathered(engine)
    assert len(await spread(counting)) == 1
    [[oldest]] = await counting.fetch(
        "SELECT min(to_date(right(relname, 8), 'YYYYMMDD')) FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid"
        " WHERE inhparent = 'pool.usage_event'::regclass"
    )
    await counting.fetch("UPDATE system.spread_tenant SET mixed_until = $1", oldest - timedelta(days=1))
    await forget_gathered(engine)
    assert await spread(counting) == []
    await commit(counting, worker, record(tenant_a, 1))
    assert await spread(counting) == []


def correction(tenant, number: int, *, buckets: int = 1, partition: int = 0) -> ConsumerRecord:
    """One that cancels the event of this number, under the key that the event has with so many buckets."""
    cancelled = event(tenant, number)
    cancels = {"source": cancelled["source"], "id": cancelled["id"]}
    sent = event(tenant, number, id=str(uuid7()), type=CORRECTION, data={"cancels": cancels})
    made = record(tenant, number, buckets=buckets, partition=partition)
    return dataclasses.replace(made, value=json.dumps(sent).encode())


async def test_a_correction_under_another_key_cancels_what_is_being_stored(counting, tenant_a):
    first, second = counting.worker(), counting.worker()
    async with batch(counting, first, record(tenant_a, 1)):
        other = asyncio.create_task(commit(counting, second, correction(tenant_a, 1, buckets=8, partition=1)))
        await eventually(lambda: waits(counting))
    await other
    assert await total(counting) == 0
    # The next ones wait for each other as well, whichever comes first.
    async with batch(counting, second, correction(tenant_a, 2, buckets=8, partition=1)):
        other = asyncio.create_task(commit(counting, first, record(tenant_a, 2)))
        await eventually(lambda: waits(counting))
    await other
    assert await total(counting) == 0


async def test_a_correction_that_waits_meets_its_event_under_another_key(counting, tenant_a):
    """However long it waits, and wherever the event comes."""
    first, second = counting.worker(), counting.worker()
    await commit(counting, first, correction(tenant_a, 1), record(tenant_a, 2))
    await commit(counting, second, record(tenant_a, 3, buckets=8, partition=1))
    await settle(counting.databases.system, tenant_a.id, 8)
    await commit(counting, second, record(tenant_a, 1, buckets=8, partition=1))
    assert await total(counting) == 2


async def test_a_correction_of_another_key_mixes_a_settled_tenant_again(counting, tenant_a):
    worker = counting.worker()
    await commit(counting, worker, record(tenant_a, 0, buckets=8))
    await settle(counting.databases.system, tenant_a.id, 8)
    await commit(counting, worker, correction(tenant_a, 0, buckets=8))
    assert await spread(counting) == [(8, False, MONDAY)]
    await commit(counting, worker, correction(tenant_a, 1))
    assert await spread(counting) == [(8, True, MONDAY)]
