"""Days that PostgreSQL has no longer are counted from the archive."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from archives import DAY

from tenantry import Tier
from usage_service.archive.reading import ArchiveReader
from usage_service.backfilling import chunks
from usage_service.corrections.archived import ArchivedCorrections
from usage_service.metering import rollup_rows

from .backfills import METERS, backfill, backfiller_of, definition, finish, rows
from .support import open_usage

DUE = datetime(2026, 4, 11, 12, tzinfo=UTC)
START = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)


@pytest.fixture
async def served(world, kafka_bootstrap, kafka_prefix, tenant_a, tenant_b):
    """Three days of samples of two tenants, one of them cancelled, stored before there was a meter of their type."""
    service = await open_usage(world.database, kafka_bootstrap, f"{kafka_prefix}backfill.")
    service.state.directory.upsert_tier(Tier(name="standard", version=1))
    for tenant in (tenant_a, tenant_b):
        service.state.directory.upsert(tenant)
    async with service.running(archive_url=world.directory.as_uri()):
        # The events are stored under version 1 of the catalogue.
        await service.put_meter("first", {"event_type": "other", "aggregation": "count"})
        for n in range(3):
            for tenant, count in ((tenant_a, 60), (tenant_b, 25)):
                for part in range(0, count, 5):
                    numbers = [701 * each for each in range(part, part + 5)]
                    data = {"v": part, "user": f"u-{part % 3}", "disk": "abc"[part % 3]}
                    await world.put_events(tenant.id, numbers, day=DAY + timedelta(days=n), data=data, kind="gauge")
        async with world.database.connect("system") as connection:
            await connection.execute(
                """
                INSERT INTO pool.correction (tenant_id, identity, id, day, source, event_id, received_at,
                                             kafka_partition, kafka_offset)
                SELECT tenant_id, identity, gen_random_uuid(), day, source, event_id, now(), 0, 0
                  FROM pool.usage_event WHERE tenant_id = $1 AND event_id = 'e-701'
                """,
                tenant_a.id,
            )
        yield service


@pytest.mark.parametrize("aggregation", METERS)
async def test_the_archive_says_what_postgresql_has_said(served, world, tenant_a, aggregation):
    asked = {**definition(aggregation), "backfill_from": (START + timedelta(hours=7, minutes=30)).isoformat()}
    await served.put_meter("stored", asked)
    await finish(backfiller_of(served, world, chunk_events=20))
    world.clock.moment = DUE + timedelta(days=1)
    await world.keeper().sweep()
    assert [await world.stored(DAY + timedelta(days=n)) for n in range(3)] == [False, False, True]

    await served.put_meter("archived", asked)
    await finish(backfiller_of(served, world, chunk_events=20))
    assert await rows(served, "archived") == await rows(served, "stored") != []
    found, before = await backfill(served, "archived"), await backfill(served, "stored")
    assert (found["events"], found["days"]) == (before["events"], before["days"])
    if aggregation == "count":
        counted = {row[0]: 0 for row in await rows(served, "archived")}
        for row in await rows(served, "archived"):
            counted[row[0]] += row[3]
        late = [each for each in range(60) if 701 * each % 86_400 >= 7.5 * 3600]
        assert counted[tenant_a.id] == len(late) + 2 * 60 - 2


async def test_an_object_that_is_missing_stops_the_backfill_and_loses_nothing(served, world, tenant_a):
    world.clock.moment = DUE
    await world.keeper().sweep()
    assert not await world.stored()
    await served.put_meter("late", {**definition("count"), "backfill_from": START.isoformat()})
    hidden = [(path, path.read_bytes()) for path in await world.files() if f"day={DAY}" in str(path)]
    for path, _ in hidden:
        path.unlink()
    keeper = backfiller_of(served, world)
    await served.put_meter("other", {**definition("count"), "backfill_from": (START + timedelta(days=1)).isoformat()})
    await finish(keeper)
    assert (await backfill(served, "other"))["state"] == "finished"
    state = await backfill(served, "late")
    assert (state["state"], state["days_done"]) == ("running", 2)
    for path, content in hidden:
        path.write_bytes(content)
    await finish(keeper)
    assert (await backfill(served, "late"))["events"] == 3 * 85 - 3


async def test_a_backfill_that_is_asked_for_while_an_archived_event_is_looked_for(served, world, tenant_a, monkeypatch):
    """It reads the archive without a lock: it begins when the correction is done, and leaves its event out."""
    day = DAY + timedelta(days=2)
    async with world.database.connect("system") as connection:
        await connection.execute(
            """
            INSERT INTO pool.correction (tenant_id, identity, id, asked_day, source, event_id, received_at,
                                         kafka_partition, kafka_offset)
            SELECT tenant_id, identity, gen_random_uuid(), day, source, event_id, now(), 0, 0
              FROM pool.usage_event WHERE tenant_id = $1 AND event_id = 'e-1402' AND day = $2
            """,
            tenant_a.id,
            day,
        )
    world.clock.moment = DUE + timedelta(days=2)
    await world.keeper().sweep()
    assert not await world.stored(day)
    corrections = ArchivedCorrections(served.databases.system, ArchiveReader(served.databases, world.store))
    looking, found = asyncio.Event(), asyncio.Event()
    find = corrections._find

    async def finding(correction):
        event = await find(correction)
        looking.set()
        await found.wait()
        return event

    monkeypatch.setattr(corrections, "_find", finding)
    correcting = asyncio.create_task(corrections.turn())
    async with asyncio.timeout(30):
        await looking.wait()
    await served.put_meter("late", {**definition("count"), "backfill_from": START.isoformat()})
    backfiller = backfiller_of(served, world)
    lock = rollup_rows.lock_rollups

    async def locking(connection, keys, groups):
        if keys[0][0] == tenant_a.id.bytes:  # the event is counted, if it is
            found.set()
            assert await correcting
        return await lock(connection, keys, groups)

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "lock_rollups", locking)
        for _ in range(5):
            await backfiller.turn()
        found.set()
        assert await correcting
    await finish(backfiller)
    [corrected] = await served.fetch("SELECT day FROM pool.correction WHERE event_id = 'e-1402'")
    assert corrected["day"] == day
    assert sum(row[3] for row in await rows(served, "late")) == 3 * 85 - 4
