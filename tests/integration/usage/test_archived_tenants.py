"""Exports and purges of a tenant reach the archive."""

from __future__ import annotations

import asyncio
import gzip
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from archives import DAY
from obstore.store import MemoryStore

from tenantry import SystemClock, uuid7
from tenantry.events import Request
from tenantry.offboarding import EXPORT, PURGE, OffboardingWorker, offboarding_handlers
from usage_service.archive.holding import LABEL, ArchivedEvents
from usage_service.data_catalogue import CATALOGUE

CLOCK = SystemClock()
DUE = datetime(2026, 4, 12, 12, tzinfo=UTC)
LATER = DAY + timedelta(days=30)


@pytest.fixture
async def two_days(world, tenant_a, tenant_b):
    """Events of two tenants on a day that the archive alone has, and on one that PostgreSQL has too."""
    for day in (DAY, LATER):
        await world.put_events(tenant_a.id, range(1_200), day=day)
        await world.put_events(tenant_b.id, range(600), day=day)
    world.clock.moment = DUE
    await world.keeper().sweep()
    assert (await world.stored(DAY), await world.stored(LATER)) == (False, True)
    assert len(await world.files()) == 4
    return world


def holding(world) -> ArchivedEvents:
    return ArchivedEvents(world.databases.system, world.store, world.archivist())


def offboarding(world, **options) -> OffboardingWorker:
    return OffboardingWorker(world.databases, CATALOGUE, CLOCK, holdings=[holding(world)], **options)


async def finish(worker: OffboardingWorker) -> None:
    while await worker.turn():
        pass


async def ask(world, kind: str, tenant) -> None:
    handlers = offboarding_handlers(world.databases, CATALOGUE, CLOCK, exports=True)
    data = {"idempotency_key": str(uuid7()), "tenant": msgspec.to_builtins(tenant)}
    await handlers[kind](Request(request_id=uuid7(), kind=kind, services=("usage",), tenant_id=tenant.id, data=data))


async def certificate(world) -> dict[str, dict]:
    [row] = await world.fetch("SELECT state, result FROM system.offboarding_task")
    assert row["state"] == "done"
    return {table["table"]: table for table in json.loads(row["result"])["tables"]}


async def test_a_purge_takes_the_tenant_out_of_every_object(two_days, tenant_a, tenant_b):
    world = two_days
    others = [row for row in world.archived() if row[0] == tenant_b.id]
    before = await world.files()
    await ask(world, PURGE, tenant_a)
    await finish(offboarding(world))
    table = (await certificate(world))[LABEL]
    assert (table["rows_before"], table["rows_after"]) == (2_400, 0)
    assert world.archived() == others
    assert not set(before) & set(await world.files())
    assert await world.fetch("SELECT FROM system.archived_tenant WHERE tenant_id = $1", tenant_a.id) == []
    # The day that PostgreSQL still has agrees with its archive, and goes when it is due.
    world.clock.moment += timedelta(days=60)
    await world.keeper().sweep()
    assert not await world.stored(LATER)
    assert world.archived() == others


@pytest.mark.parametrize("turns", range(1, 5))
async def test_a_purge_that_is_killed_leaves_nothing_of_what_it_replaced(
    two_days, tenant_a, tenant_b, turns, monkeypatch
):
    world = two_days
    await ask(world, PURGE, tenant_a)
    left = turns

    async def killed(self, path):
        nonlocal left
        left -= 1
        if not left:
            raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr("usage_service.archive.store.ArchiveStore.delete", killed)
        with pytest.raises(asyncio.CancelledError):
            await finish(offboarding(world))
    await finish(offboarding(world))
    assert (await certificate(world))[LABEL]["rows_after"] == 0
    assert {row[0] for row in world.archived()} == {tenant_b.id}
    assert {file.stem for file in await world.files()} == {str(row["id"]) for row in await world.manifest()}


async def test_a_purge_waits_for_a_day_that_is_being_archived(two_days, tenant_a):
    """Its archivist may have read the tenant's rows before they were deleted."""
    world = two_days
    await ask(world, PURGE, tenant_a)
    worker = offboarding(world)
    async with world.database.connect("system") as connection, connection.transaction():
        await connection.execute("SELECT FROM system.usage_day WHERE day = $1 FOR UPDATE", LATER)
        assert await worker.turn()
        assert not await worker.turn()  # it is tried again in half a minute
    [row] = await world.fetch("SELECT state, error FROM system.offboarding_task")
    assert row["state"] == "running"
    assert row["error"]


async def test_an_export_has_the_events_that_the_archive_alone_has(two_days, tenant_a):
    world = two_days
    kept = [row for row in world.archived() if row[0] == tenant_a.id and row[7] == DAY]
    await ask(world, EXPORT, tenant_a)
    store = MemoryStore()
    await finish(offboarding(world, store=store))
    table = (await certificate(world))[LABEL]
    assert table["rows"] == 1_200
    content = bytes(await (await store.get_async(table["file"])).bytes_async())
    lines = [json.loads(line) for line in gzip.decompress(content).splitlines()]
    assert [(line["identity"], line["event_id"], line["data"]) for line in lines] == [
        (str(row[1]), row[10], row[12]) for row in sorted(kept, key=lambda row: (row[0], row[2], row[1]))
    ]
    assert datetime.fromisoformat(lines[0]["event_time"]) == min(row[2] for row in kept)
