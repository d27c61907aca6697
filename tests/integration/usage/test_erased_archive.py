"""An erasure reaches the archive, survives kills, and lets no batch come between a day's events and its rollups."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from archives import DAY

from tenantry.testing import eventually
from usage_service.archive.archivist import Archivist
from usage_service.archive.reading import ArchiveReader
from usage_service.corrections.archived import ArchivedCorrections
from usage_service.domain.erasing import PREFIX
from usage_service.erasure.service import ask_erasure, get_erasure
from usage_service.erasure.stored import StoredDay
from usage_service.erasure.worker import ErasureWorker

from .support import event
from .test_erasure import ALICE, METERS, START, WHOLE, ask, counted, data_of, report, worker
from .test_erasure import finish as finish_usage

__all__ = ["counted"]

DUE = datetime(2026, 4, 12, 12, tzinfo=UTC)
LATER = DAY + timedelta(days=30)


@pytest.fixture
async def two_days(world, tenant_a, tenant_b):
    """Events of two tenants, some of them Alice's, on a day that the archive alone has, and on one that is in both."""
    for day in (DAY, LATER):
        for tenant in (tenant_a, tenant_b):
            await world.put_events(tenant.id, range(900), day=day, data={"user": "bob"})
            await world.put_events(tenant.id, range(900, 1_200), day=day, data={"user": ALICE, "grün": True})
    world.clock.moment = DUE
    await world.keeper().sweep()
    assert (await world.stored(DAY), await world.stored(LATER)) == (False, True)
    await world.fetch(
        "INSERT INTO system.partition_progress VALUES (0, clock_timestamp() + interval '1 hour')"
        " ON CONFLICT (partition) DO UPDATE SET received_until = excluded.received_until"
    )
    world.clock.moment = datetime.now(UTC) + timedelta(hours=1)
    return world


def eraser(world) -> ErasureWorker:
    return ErasureWorker(world.databases.system, world.store, world.archivist(), archived(world), world.clock)


def archived(world) -> ArchivedCorrections:
    return ArchivedCorrections(world.databases.system, ArchiveReader(world.databases, world.store))


async def asked(world, tenant):
    async with world.databases.system_session() as session:
        row = await ask_erasure(
            session,
            tenant.id,
            values=[ALICE],
            paths=["$.user"],
            attributes=False,
            accept_differing_figures=False,
            by="test",
        )
    return row.id


async def finish(world, erasure_id):
    """The report once it is done; what waits is due at once."""
    for _ in range(200):
        while await eraser(world).turn():
            pass
        async with world.databases.system_session() as session:
            row = await get_erasure(session, None, erasure_id)
        if row.step == "done":
            return row
        world.clock.moment += timedelta(seconds=11)
    raise AssertionError(row)


def users(rows, tenant) -> list[str]:
    return [json.loads(row[12])["user"] for row in rows if row[0] == tenant.id]


async def test_an_erasure_reaches_every_object(two_days, tenant_a, tenant_b):
    world = two_days
    before, others = world.archived(), [row for row in world.archived() if row[0] == tenant_b.id]
    done = await finish(world, await asked(world, tenant_a))
    assert done.places == {"usage_event": 300, "archive.usage_event": 600}
    after = world.archived()
    assert [row for row in after if row[0] == tenant_b.id] == others
    assert ALICE not in repr([row for row in after if row[0] == tenant_a.id])
    assert len({user for user in users(after, tenant_a) if user.startswith(PREFIX)}) == 1
    # Identity, times, places and digests stay, and so do the rows of others of the tenant.
    assert [row[:12] for row in after] == [row[:12] for row in before]
    assert users(after, tenant_a).count("bob") == 1_800
    assert {file.stem for file in await world.files()} == {str(row["id"]) for row in await world.manifest()}
    # The day that PostgreSQL has is what its archive has, and goes when it is due.
    stored = [row for row in after if row[7] == LATER]
    assert await world.rows() == stored
    world.clock.moment += timedelta(days=60)
    await world.keeper().sweep()
    assert not await world.stored(LATER)
    assert world.archived() == after


@pytest.mark.parametrize("ends", range(1, 4))
@pytest.mark.parametrize(
    "place",
    [
        "usage_service.archive.store.ArchiveStore.put",
        "usage_service.archive.store.ArchiveStore.delete",
        "usage_service.erasure.worker.add_found",
        "usage_service.erasure.worker.set_day_done",
        "usage_service.erasure.worker.set_cursor",
        "usage_service.erasure.worker.set_done",
    ],
)
async def test_an_erasure_that_is_killed_goes_on(two_days, tenant_a, place, ends, monkeypatch):
    world = two_days
    erasure_id = await asked(world, tenant_a)
    left = ends

    async def killed(*_, **__):
        raise asyncio.CancelledError

    for _ in range(ends):
        with monkeypatch.context() as patch:
            patch.setattr(place, killed)
            try:
                while await eraser(world).turn():
                    pass
            except asyncio.CancelledError:
                left -= 1
        # Another piece is done before the next kill.
        await eraser(world).turn()
    done = await finish(world, erasure_id)
    assert done.places == {"usage_event": 300, "archive.usage_event": 600}
    assert ALICE not in repr([row for row in (*world.archived(), *await world.rows()) if row[0] == tenant_a.id])
    assert {file.stem for file in await world.files()} == {str(row["id"]) for row in await world.manifest()}
    assert left < ends


async def test_an_erasure_waits_for_a_day_that_is_being_archived(two_days, tenant_a):
    """Its archivist may have read the values before they were erased."""
    world = two_days
    erasure_id = await asked(world, tenant_a)
    async with world.database.connect("system") as connection, connection.transaction():
        await connection.execute("SELECT FROM system.usage_day WHERE day = $1 FOR UPDATE", LATER)
        while await eraser(world).turn():
            pass
        async with world.databases.system_session() as session:
            row = await get_erasure(session, None, erasure_id)
        assert (row.step, bool(row.problem)) == ("days", True)
    assert (await finish(world, erasure_id)).step == "done"


async def test_no_batch_comes_between_a_days_events_and_its_rollups(counted, tenant_a, monkeypatch):
    usage = counted
    erased_id = (await ask(usage, tenant_a)).json()["id"]
    await usage.fetch("UPDATE system.partition_progress SET received_until = clock_timestamp() + interval '1 hour'")
    relabel = StoredDay._relabel
    new = event(tenant_a, 700, time=(START + timedelta(minutes=3)).isoformat(), data={**data_of(0), "plan": "a"})

    async def with_a_batch_before(day):
        await usage.send(new)

        async def stored() -> bool:
            return bool(await usage.fetch("SELECT FROM pool.usage_event WHERE event_id = 'e-700'"))

        with pytest.raises(AssertionError):
            await eventually(stored, within=1.5)
        return await relabel(day)

    monkeypatch.setattr(StoredDay, "_relabel", with_a_batch_before)
    async with usage.metering():
        # The workers are at it when the erasure comes.
        await usage.send(event(tenant_a, 699, time=START.isoformat(), data={**data_of(1), "seen": []}))
        await eventually(usage.counted, within=60)
        working = worker(usage)

        async def done() -> bool:
            while await working.turn():
                pass
            return (await report(usage, erased_id))["state"] == "done"

        await eventually(done, within=60)
        await eventually(usage.counted, within=60)
    await compare_with_raw(usage, tenant_a)


async def compare_with_raw(usage, tenant) -> None:
    """Rollups say what raw events say, which a filter off the dimensions asks for."""
    for slug in ("calls", "volume", "last", "users", "users-by-plan"):
        grouped = {"group_by": ["user", "plan"]} if "group_by" in METERS[slug] else {}
        hours = await usage.query(tenant, slug, **WHOLE, window="hour", **grouped)
        raw = await usage.query(tenant, slug, **WHOLE, window="hour", **grouped, **{"filter[$.bytes][gte]": "0"})
        assert [(i["group"], i["value"]) for i in raw["items"]] == [(i["group"], i["value"]) for i in hours["items"]]


async def test_what_a_backfill_had_read_before_is_erased_too(counted, tenant_a, monkeypatch):
    """It writes what it counted when days and archive are done; and the person has come back by then."""
    usage = counted
    erased_id = (await ask(usage, tenant_a)).json()["id"]
    await usage.fetch(
        "INSERT INTO system.meter_backfill (meter_id, first_time, last_time, unmatched_until, unmatched_before, state,"
        " reached, after_tenant, days_done, events, hours, created_at)"
        " SELECT id, now(), now(), now(), 0, 'running', now(), id, 0, 0, 0, now()"
        " FROM system.meter WHERE slug = 'calls'"
    )
    written = {
        table: await usage.fetch(
            f"SELECT to_jsonb(row) AS row FROM pool.{table} AS row WHERE tenant_id = $1", tenant_a.id
        )
        for table in ("usage_rollup", "usage_unique_value")
    }
    sweep = Archivist.sweep_all

    async def and_write(archivist):
        monkeypatch.setattr(Archivist, "sweep_all", sweep)
        for table, rows in written.items():
            for each in rows:
                await usage.fetch(
                    f"INSERT INTO pool.{table} SELECT * FROM jsonb_populate_record(NULL::pool.{table}, $1)"
                    " ON CONFLICT DO NOTHING",
                    each["row"],
                )
        async with usage.metering():
            await usage.send(event(tenant_a, 700, time=(START + timedelta(minutes=3)).isoformat(), data=data_of(0)))
            await eventually(usage.counted, within=60)
        return await sweep(archivist)

    monkeypatch.setattr(Archivist, "sweep_all", and_write)
    assert (await finish_usage(usage, erased_id))["state"] == "done"
    events = await usage.fetch("SELECT event_id, data FROM pool.usage_event WHERE tenant_id = $1", tenant_a.id)
    assert [row["event_id"] for row in events if ALICE in row["data"]] == ["e-700"]
    rollups = await usage.fetch(
        "SELECT slug, sum(count)::int AS events, sum(count) FILTER (WHERE groups LIKE '%alice%')::int AS hers"
        " FROM pool.usage_rollup JOIN system.meter ON id = meter_id WHERE tenant_id = $1 GROUP BY 1",
        tenant_a.id,
    )
    assert {row["slug"]: row["events"] for row in rollups} == dict.fromkeys(METERS, 41)
    assert {row["hers"] for row in rollups} == {1, None}
    await compare_with_raw(usage, tenant_a)


async def test_nothing_expires_while_somebody_is_erased(two_days, tenant_a):
    """The rollups of a day may have to be made anew from its archive."""
    world = two_days
    erasure_id = await asked(world, tenant_a)
    manifest = await world.manifest()
    world.clock.moment = DUE + timedelta(days=400)
    await world.fetch("UPDATE system.partition_progress SET received_until = $1", world.clock.moment)
    await world.keeper().sweep()
    kept = {row["id"] for row in await world.manifest()}
    assert {row["id"] for row in manifest if row["day"] == DAY} <= kept
    await finish(world, erasure_id)
    await world.keeper().sweep()
    assert DAY not in {row["day"] for row in await world.manifest()}


async def test_a_correction_in_the_archive_waits_for_an_erasure(two_days, tenant_a):
    """Its event may still have the value, and the rollups the pseudonym."""
    world = two_days
    await world.fetch(
        "INSERT INTO pool.correction (tenant_id, identity, id, asked_day, source, event_id, received_at,"
        " kafka_partition, kafka_offset) VALUES ($1, $1, $1, $2, 's', 'e', now(), 0, 0)",
        tenant_a.id,
        DAY,
    )
    erasure_id = await asked(world, tenant_a)
    keeper = archived(world)
    assert await eraser(world).turn()
    assert not await keeper.turn()
    await finish(world, erasure_id)
    assert await keeper.turn()
