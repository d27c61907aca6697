"""Raw events go into the archive, whole and once, before they leave PostgreSQL; whatever is killed in between."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archives import DAY, TERMS, ArchiveWorld
from obstore.exceptions import GenericError

from tenantry import StartupRefused
from tenantry.testing import eventually
from usage_service.archive.archivist import Archivist
from usage_service.archive.store import ArchiveStore
from usage_service.metering.days import OwnedDays
from usage_service.retention.days import closed_day

from .support import RoleProcess, event, running

DUE = datetime(2026, 4, 12, 12, tzinfo=UTC)  # 40 days after DAY has ended, and some hours


async def test_a_day_is_archived_as_it_is_and_read_by_duckdb(world, tenant_a, tenant_b):
    await world.put_events(tenant_b.id, range(700))
    await world.put_events(tenant_a.id, range(700, 2_500))
    await world.keeper().sweep()
    manifest = await world.manifest()
    assert [row["rows"] for row in manifest] == [1_000, 1_000, 500]
    assert world.archived() == await world.rows()
    assert await world.stored()
    # Sorted by tenant and time, so that one tenant's rows are few row groups.
    tables = [pq.read_table(file, partitioning=None) for file in sorted(await world.files(), key=lambda f: f.name)]
    order = [(row["tenant_id"], row["event_time"]) for table in tables for row in table.to_pylist()]
    assert order == sorted(order)
    [spans] = [await world.fetch("SELECT tenant_id, sum(rows) AS rows FROM system.archived_tenant GROUP BY 1")]
    assert {row["tenant_id"]: row["rows"] for row in spans} == {tenant_a.id: 1_800, tenant_b.id: 700}


async def test_nothing_is_written_twice(world, tenant_a):
    await world.put_events(tenant_a.id, range(10))
    await world.keeper().sweep()
    before = await world.files()
    world.clock.moment += timedelta(days=5)
    await world.keeper().sweep()
    assert await world.files() == before


async def test_a_day_is_dropped_when_it_is_due_and_not_before(world, tenant_a):
    await world.put_events(tenant_a.id, range(10))
    kept = await world.rows()
    world.clock.moment = datetime(2026, 4, 10, 23, 59, tzinfo=UTC)
    await world.keeper().sweep()
    assert await world.stored()
    world.clock.moment = datetime(2026, 4, 11, 0, 0, tzinfo=UTC)
    await world.keeper().sweep()
    assert not await world.stored()
    assert world.archived() == kept
    assert all(row["released_at"] is not None for row in await world.manifest())


async def test_history_that_came_in_yesterday_stays(world, tenant_a):
    """As under a test clock: receipt decides."""
    old = date(2015, 5, 17)
    await world.put_events(tenant_a.id, range(10), day=old, received=DUE - timedelta(days=1))
    world.clock.moment = DUE
    await world.keeper().sweep()
    assert await world.stored(old)
    assert len(world.archived()) == 10
    world.clock.moment = DUE + timedelta(days=39, minutes=1)
    await world.keeper().sweep()
    assert not await world.stored(old)


async def test_late_events_make_a_further_object_before_the_day_goes(world, tenant_a, tenant_b):
    await world.put_events(tenant_a.id, range(10))
    await world.keeper().sweep()
    await world.put_events(tenant_b.id, range(10, 15), received=datetime(2026, 3, 20, tzinfo=UTC))
    kept = await world.rows()
    world.clock.moment = DUE
    await world.keeper().sweep()
    assert await world.stored()  # the late ones were received 23 days ago
    world.clock.moment = datetime(2026, 4, 29, 1, tzinfo=UTC)
    await world.keeper().sweep()
    assert not await world.stored()
    assert [row["rows"] for row in await world.manifest()] == [10, 5]
    assert world.archived() == kept


async def test_an_event_that_was_stored_behind_its_slice_has_the_slice_written_again(world, tenant_a):
    """It was parked, or a broker's clock went back: its receipt lies in a slice that is archived already."""
    await world.put_events(tenant_a.id, range(10))
    await world.keeper().sweep()
    [first] = await world.files()
    await world.put_events(tenant_a.id, range(10, 12))
    kept = await world.rows()
    world.clock.moment = DUE
    await world.keeper().sweep()
    assert not await world.stored()
    assert world.archived() == kept
    assert first not in await world.files()


async def test_a_day_that_has_gone_takes_no_events_any_more(world, tenant_a):
    await world.put_events(tenant_a.id, range(10))
    world.clock.moment = DUE
    await world.keeper().sweep()
    days = OwnedDays(world.database.urls.migrator, window_days=2)
    around = [DAY + timedelta(days=number) for number in range(-3, 4)]
    assert await days.ensure(around) == set(around[1:6])
    assert not await world.stored()
    assert await world.stored(around[0])
    assert await world.stored(around[6])


async def test_events_of_a_batch_that_is_open_keep_their_day(world, tenant_a):
    await world.put_events(tenant_a.id, range(10))
    world.clock.moment = DUE
    async with world.database.connect("system") as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("DELETE FROM pool.usage_event WHERE event_id = 'none' AND day = $1", DAY)
        await world.keeper().sweep()
        assert await world.stored()
        [row] = await world.fetch("SELECT problem FROM system.usage_day WHERE day = $1", DAY)
        assert row["problem"]
        await transaction.rollback()
    world.clock.moment += timedelta(minutes=1)
    await world.keeper().sweep()
    assert not await world.stored()


class Failing:
    """A store that is cut off, as by SIGKILL, at one of its calls."""

    def __init__(self, store: ArchiveStore, at: str, after: int) -> None:
        self._store, self._at, self._left = store, at, after

    def __getattr__(self, name):
        found = getattr(self._store, name)
        if name != self._at:
            return found

        async def call(*arguments):
            if not self._left:
                raise asyncio.CancelledError
            self._left -= 1
            return await found(*arguments)

        return call


@pytest.mark.parametrize(("at", "after"), [("put", 0), ("put", 2), ("fetch", 0), ("fetch", 1), ("fetch", 3)])
async def test_a_kill_leaves_no_half_of_a_day_behind(world, tenant_a, at, after):
    await world.put_events(tenant_a.id, range(2_500))
    world.clock.moment = DUE
    with pytest.raises(asyncio.CancelledError):
        await world.keeper(world.archivist(Failing(world.store, at, after))).sweep()
    assert await world.stored()
    kept = await world.rows()
    manifest = await world.manifest()
    assert sum(row["rows"] for row in manifest) in {0, 2_500}
    await world.keeper().sweep()
    assert not await world.stored()
    assert world.archived() == kept
    assert {file.stem for file in await world.files()} == {str(row["id"]) for row in await world.manifest()}


async def test_a_store_that_is_away_is_waited_for(world, tenant_a, monkeypatch):
    await world.put_events(tenant_a.id, range(10))
    world.clock.moment = DUE
    real, tries = ArchiveStore.put, []

    async def away(self, path, file):
        tries.append(path)
        if len(tries) == 1:
            raise GenericError("the bucket cannot be reached")
        await real(self, path, file)

    swept = Archivist.sweep_all

    async def unlisted(self):
        monkeypatch.setattr(Archivist, "sweep_all", swept)
        raise GenericError("the bucket cannot be reached")

    monkeypatch.setattr(Archivist, "sweep_all", unlisted)
    monkeypatch.setattr("usage_service.retention.keeper._POLL_SECONDS", 0.01)
    monkeypatch.setattr("usage_service.retention.keeper._RETRY", timedelta(0))
    monkeypatch.setattr(ArchiveStore, "put", away)
    async with running(world.keeper().run()):
        await eventually(lambda: dropped(world), within=30)
        await eventually(lambda: Archivist.sweep_all is swept, within=30)
    assert len(world.archived()) == 10


async def dropped(world, day: date = DAY) -> bool:
    return not await world.stored(day)


async def test_a_kill_between_the_drop_and_saying_so_is_made_good(world, tenant_a, monkeypatch):
    await world.put_events(tenant_a.id, range(10))
    world.clock.moment = DUE

    async def killed(*_, **__):
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr("usage_service.retention.keeper.set_dropped", killed)
        with pytest.raises(asyncio.CancelledError):
            await world.keeper().sweep()
    assert not await world.stored()
    assert all(row["released_at"] for row in await world.manifest())
    await world.keeper().sweep()
    [row] = await world.fetch("SELECT look_at, dropped_at FROM system.usage_day")
    assert row["look_at"] is None
    assert row["dropped_at"] == DUE


def spoil(file: Path, damage: str) -> None:
    if damage == "missing":
        file.unlink()
        return
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", ["changed", "missing"])
async def test_an_object_that_is_damaged_is_written_again_before_the_day_goes(world, tenant_a, damage):
    await world.put_events(tenant_a.id, range(2_500))
    kept = await world.rows()
    await world.keeper().sweep()
    spoil((await world.files())[1], damage)
    world.clock.moment = DUE
    await world.keeper().sweep()
    assert not await world.stored()
    assert world.archived() == kept


async def test_a_day_with_fewer_rows_than_its_archive_waits(world, tenant_a):
    await world.put_events(tenant_a.id, range(10))
    await world.keeper().sweep()
    await world.fetch("DELETE FROM pool.usage_event WHERE event_id = 'e-3'")
    world.clock.moment = DUE
    await world.keeper().sweep()
    assert await world.stored()
    [row] = await world.fetch("SELECT problem FROM system.usage_day")
    assert row["problem"] == "2026-03-01: 10 rows are archived, and 9, or others, are stored"
    assert len(world.archived()) == 10


async def test_two_keepers_do_not_do_the_same_day_twice(world, tenant_a):
    days = [DAY + timedelta(days=n) for n in range(4)]
    for day in days:
        await world.put_events(tenant_a.id, range(50), day=day)
    world.clock.moment = DUE + timedelta(days=5)
    await asyncio.gather(*(world.keeper().sweep() for _ in range(3)))
    world.clock.moment += timedelta(minutes=1)  # where one read a day, another could not drop any
    await world.keeper().sweep()
    assert [await world.stored(day) for day in days] == [False] * 4
    assert [(row["day"], row["rows"]) for row in await world.manifest()] == [(day, 50) for day in days]
    assert len(await world.files()) == 4


async def test_the_archive_ends_by_receipt_too(world, tenant_a):
    await world.put_events(tenant_a.id, range(10))
    world.clock.moment = DUE
    await world.keeper().sweep()
    world.clock.moment = datetime(2026, 3, 1, 11, 59, tzinfo=UTC) + TERMS.archive
    await world.keeper().sweep()
    assert len(await world.files()) == 1
    world.clock.moment += timedelta(minutes=1)
    await world.keeper().sweep()
    assert await world.files() == []
    assert await world.manifest() == []


async def test_a_day_expires_as_a_whole(world, tenant_a):
    """Of a part of its events a figure would be too low."""
    await world.put_events(tenant_a.id, range(10))
    await world.keeper().sweep()
    late = datetime(2026, 3, 20, tzinfo=UTC)
    await world.put_events(tenant_a.id, range(10, 15), received=late)
    world.clock.moment = late + TERMS.raw + timedelta(days=1)
    await world.keeper().sweep()
    assert not await world.stored()
    assert len(await world.files()) == 2
    world.clock.moment = late + TERMS.archive - timedelta(seconds=1)
    await world.keeper().sweep()
    assert len(world.archived()) == 15
    world.clock.moment = late + TERMS.archive
    await world.keeper().sweep()
    assert (await world.files(), await world.manifest()) == ([], [])


async def test_dead_letters_end(world, tenant_a):
    await world.fetch(
        """
        INSERT INTO pool.dead_letter (tenant_id, id, kind, reason, kafka_partition, kafka_offset, received_at, payload,
                                      created_at)
        SELECT $1, gen_random_uuid(), 'undecodable', 'none', 0, 0, at, '', at
          FROM unnest($2::timestamptz[]) AS at
        """,
        tenant_a.id,
        [DUE - TERMS.dead_letters, DUE - TERMS.dead_letters + timedelta(seconds=1)],
    )
    world.clock.moment = DUE
    await world.keeper().sweep()
    assert len(await world.fetch("SELECT FROM pool.dead_letter")) == 1


async def test_a_store_that_cannot_be_used_refuses_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    for url in ((tmp_path / "file").as_uri(), "gopher://x", "file://"):
        with pytest.raises(StartupRefused, match=r"^USAGE_ARCHIVE_URL cannot be used: \w+$"):
            await ArchiveStore.open(url if url != "file://" else "file:///proc/none", tmp_path)
        with pytest.raises(StartupRefused):
            await ArchiveStore.open_to_read(url if url != "file://" else "file:///proc/none", tmp_path)
    await ArchiveStore.open(None, tmp_path / "state" / "usage" / "archive")
    assert (tmp_path / "state" / "usage" / "archive").is_dir()


async def test_a_store_that_is_away_keeps_no_reader_from_its_start(tmp_path, monkeypatch):
    """What it serves besides, such as the ingest, needs no archive."""

    async def away(self, **_):
        raise GenericError("the bucket is away")

    monkeypatch.setattr(ArchiveStore, "check", away)
    await ArchiveStore.open_to_read(None, tmp_path / "archive")
    with pytest.raises(StartupRefused):
        await ArchiveStore.open(None, tmp_path / "archive")


async def test_events_of_a_day_that_was_dropped_become_letters(usage, tenant_a):
    """Whose copies are in the archive alone, where no worker looks: they might count again."""
    moment = datetime.now(UTC) - timedelta(days=20)
    old = {"time": moment.isoformat()}
    async with usage.metering(members=1):
        await usage.send(event(tenant_a, 1, **old))
        await eventually(usage.counted, within=60)
        async with closed_day(usage.database.urls.migrator, moment.date()) as closed:
            await closed.drop()
        await usage.send(event(tenant_a, 1, **old))
        await usage.send(event(tenant_a, 2, time=(moment + timedelta(days=1)).isoformat()))
        await usage.send(event(tenant_a, 3, time=(moment + timedelta(days=2)).isoformat()))
        await usage.send(event(tenant_a, 1, **old))
        await eventually(usage.counted, within=60)
    assert [row["event_id"] for row in await usage.fetch("SELECT event_id FROM pool.usage_event")] == ["e-3"]
    letters = await usage.fetch("SELECT kind, event_id, reason FROM pool.dead_letter ORDER BY event_id")
    assert [(row["kind"], row["event_id"]) for row in letters] == [("late", "e-1"), ("late", "e-2")]
    assert "archive" in letters[0]["reason"]
    assert await usage.fetch("SELECT FROM system.outbox") == []


async def test_a_relay_that_is_killed_is_taken_over_from(usage, tenant_a, tmp_path):
    """Processes that get SIGKILL at whatever they are at, until one is left alone."""
    world = ArchiveWorld(usage.database, usage.databases, tmp_path)
    old = (datetime.now(UTC) - timedelta(days=60)).date()
    await world.put_events(tenant_a.id, range(30_000), day=old)
    kept = await world.rows()
    environment = usage.environment() | {"USAGE_ARCHIVE_URL": tmp_path.as_uri()}
    for files in (1, 1):
        process = await RoleProcess.start("usage-relay", environment)
        try:
            await eventually(partial(seen, world, files), within=60)
        finally:
            await process.kill()
        assert await world.rows() == kept or world.archived() == kept
    process = await RoleProcess.start("usage-relay", environment)
    try:
        await eventually(lambda: dropped(world, old), within=60)
    finally:
        await process.kill()
    assert world.archived() == kept
    assert {file.stem for file in await world.files()} == {str(row["id"]) for row in await world.manifest()}


async def seen(world, files: int) -> bool:
    """Whether that many objects, whole or half, were begun, or all is done."""
    return len(await world.files()) >= files or bool(await world.manifest())


async def test_a_relay_without_an_archive_does_not_start(usage):
    environment = usage.environment() | {"USAGE_ARCHIVE_URL": "file:///proc/none"}
    process = await RoleProcess.start("usage-relay", environment)
    try:
        await eventually(lambda: not process.alive, within=60)
    finally:
        await process.kill()
