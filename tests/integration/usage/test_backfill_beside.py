"""Backfills while workers count, keepers die, and other backends hold what they hold: every event once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from tenantry.testing import eventually
from usage_service.backfilling import chunks, keeper
from usage_service.domain.instants import microseconds
from usage_service.domain.meters import CompiledMeter
from usage_service.metering import rollup_rows
from usage_service.metering.recounting import recount
from usage_service.meters.repository import versions_of

from .backfills import METERS, START, backfill, backfiller_of, definition, finish, gauge, rows, sample
from .batches import Member
from .support import RoleProcess

UNFINISHED = "SELECT FROM system.meter_backfill WHERE state <> 'finished'"
WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


async def ask(usage, aggregation: str = "count", **changes: Any) -> None:
    await usage.put_meter("late", {**definition(aggregation), "backfill_from": START.isoformat(), **changes})


async def waits(usage) -> bool:
    return bool(await usage.fetch(WAITING))


@pytest.fixture
def before_locks(monkeypatch):
    """Calls what a test gives it when a step has counted and is about to lock, once."""
    acts: list[Callable[[], Awaitable[object]]] = []
    lock = rollup_rows.lock_rollups

    async def locking(*given: Any):
        if acts:
            await acts.pop()()
        return await lock(*given)

    monkeypatch.setattr(chunks, "lock_rollups", locking)
    return acts


@pytest.fixture
def after_locks(monkeypatch):
    """Calls what a test gives it when a step holds its locks, once."""
    acts: list[Callable[[], Awaitable[object]]] = []
    lock = rollup_rows.lock_rollups

    async def locking(*given: Any):
        kept = await lock(*given)
        if acts:
            await acts.pop()()
        return kept

    monkeypatch.setattr(chunks, "lock_rollups", locking)
    return acts


async def test_it_begins_when_no_batch_is_left_that_may_not_know_the_meter(usage, tenant_a, tenant_b, backfiller):
    behind, beside = await Member.join(usage, 0), await Member.join(usage, 1)
    await behind.count(gauge(tenant_a, 1, 10))
    async with behind.batch(gauge(tenant_a, 2, 20)):
        await ask(usage)
        # Batches that know the meter come and go: they are not waited for, and do not wait.
        for number in range(3):
            assert not await backfiller.turn()
            await beside.count(gauge(tenant_b, number, 30))
        async with beside.batch(gauge(tenant_b, 3, 30)):
            assert not await backfiller.turn()
        assert (await backfill(usage, "late"))["state"] == "waiting"
    async with beside.batch(gauge(tenant_b, 4, 30)):
        assert await backfiller.turn()
    await finish(backfiller)
    assert [(row[0], row[3]) for row in await rows(usage, "late")] == sorted([(tenant_a.id, 2), (tenant_b.id, 5)])
    assert (await backfill(usage, "late"))["events"] == 2


async def test_a_backup_that_reads_for_hours_is_not_waited_for(usage, tenant_a, backfiller):
    await (await Member.join(usage)).count(gauge(tenant_a, 1, 10))
    async with usage.database.connect() as backup, backup.transaction():
        await backup.fetch("SELECT FROM system.meter_catalogue")
        await ask(usage)
        await finish(backfiller)
    assert (await backfill(usage, "late"))["state"] == "finished"


@pytest.mark.parametrize("aggregation", METERS)
async def test_what_a_worker_commits_before_the_locks_is_counted_once(
    usage, tenant_a, backfiller, before_locks, aggregation
):
    dice = random.Random(aggregation)  # noqa: S311 (a seed that is repeated)
    member = await Member.join(usage)
    await usage.put_meter("always", definition(aggregation))
    await member.count(*sample([tenant_a], dice, range(60)))
    await ask(usage, aggregation)
    beside: list[asyncio.Task[None]] = []

    async def commit() -> None:
        # New samples of groups that the step has seen, and a group that it has not: it gives its locks back for it.
        batch = [*sample([tenant_a], dice, range(60, 90)), gauge(tenant_a, 99, 1_500, disk="new", user="n")]
        beside.append(asyncio.create_task(member.count(*batch)))
        # Where it has the different values of the step, which are not committed, it goes on after the step.
        await eventually(lambda: beside[0].done() or waits(usage), within=30)

    before_locks.append(commit)
    await finish(backfiller)
    await beside[0]
    assert await rows(usage, "late") == await rows(usage, "always")
    assert (await backfill(usage, "late"))["state"] == "finished"


@pytest.mark.parametrize("aggregation", METERS)
async def test_what_a_worker_adds_while_the_locks_are_held_comes_on_top(
    usage, tenant_a, backfiller, after_locks, aggregation
):
    dice = random.Random(aggregation)  # noqa: S311 (a seed that is repeated)
    member = await Member.join(usage)
    await usage.put_meter("always", definition(aggregation))
    await member.count(*sample([tenant_a], dice, range(60)), gauge(tenant_a, 500, 1_500))
    await ask(usage, aggregation)
    beside: list[asyncio.Task[None]] = []

    async def begin() -> None:
        batch = [*sample([tenant_a], dice, range(60, 90)), gauge(tenant_a, 501, 1_501)]
        beside.append(asyncio.create_task(member.count(*batch)))
        await eventually(lambda: waits(usage), within=30)

    after_locks.append(begin)
    await finish(backfiller)
    await beside[0]
    assert await rows(usage, "late") == await rows(usage, "always")


@pytest.mark.parametrize("aggregation", METERS)
async def test_a_batch_that_is_not_committed_is_waited_for_where_it_has_the_same_rollups(
    usage, tenant_a, backfiller, aggregation
):
    dice = random.Random(aggregation)  # noqa: S311 (a seed that is repeated)
    member = await Member.join(usage)
    await usage.put_meter("always", definition(aggregation))
    await member.count(*sample([tenant_a], dice, range(60)), gauge(tenant_a, 500, 1_500))
    await ask(usage, aggregation)
    await backfiller.turn()
    async with member.batch(*sample([tenant_a], dice, range(60, 90)), gauge(tenant_a, 501, 1_501)):
        working = asyncio.create_task(finish(backfiller))
        await eventually(lambda: waits(usage), within=30)
        assert not working.done()
    await working
    assert await rows(usage, "late") == await rows(usage, "always")


class Killed(Exception):
    pass


@pytest.mark.parametrize("aggregation", METERS)
async def test_it_goes_on_wherever_it_was_killed(usage, tenant_a, tenant_b, archive, monkeypatch, aggregation):
    dice = random.Random(aggregation)  # noqa: S311 (a seed that is repeated)
    member = await Member.join(usage)
    await usage.put_meter("always", definition(aggregation))
    before = sample([tenant_a, tenant_b], dice, range(80))
    await member.count(*before)
    stored = (await usage.fetch("SELECT count(*) FROM pool.usage_event"))[0][0]
    assert stored == 80
    await ask(usage, aggregation)
    numbers = iter(range(80, 1_000))
    deaths = 0

    def dies(module: Any, name: str) -> None:
        """What a step does next fails now and then, before or after it was done."""
        done = getattr(module, name)

        async def dying(*given: Any, **options: Any):
            nonlocal deaths
            place = dice.random()
            if place < 0.15:
                deaths += 1
                raise Killed
            found = await done(*given, **options)
            if place > 0.85:
                deaths += 1
                raise Killed
            return found

        monkeypatch.setattr(module, name, dying)

    for name in ("begin_job", "next_scope", "recount_scope", "take_off_the_list", "go_on", "finish_day", "enter"):
        dies(keeper, name)
    while await usage.fetch(UNFINISHED):
        again = backfiller_of(usage, archive, chunk_events=7)
        while await again.turn():
            if dice.random() < 0.2:
                await member.count(*sample([tenant_a, tenant_b], dice, range(n := next(numbers), n + 1)))
    assert deaths > 5
    assert await rows(usage, "late") == await rows(usage, "always")
    state = await backfill(usage, "late")
    assert (state["state"], state["days_done"]) == ("finished", state["days"])
    if aggregation != "sum":
        counted = sum(1 for each in before if aggregation in {"count", "unique_count"} or each["data"]["v"] != "none")
        assert state["events"] == counted
    assert await usage.fetch("SELECT FROM pool.unmatched_type") == []


async def test_keepers_share_the_work_and_none_does_a_step_twice(usage, tenant_a, tenant_b, archive):
    dice = random.Random(1)  # noqa: S311 (a seed that is repeated)
    member = await Member.join(usage)
    await usage.put_meter("always", definition("sum"))
    await member.count(
        *[gauge(tenant, n, dice.uniform(0, 2_000)) for tenant in (tenant_a, tenant_b) for n in range(150)]
    )
    await ask(usage, "sum")
    await usage.put_meter("count", {**definition("count"), "backfill_from": START.isoformat()})

    while await usage.fetch(UNFINISHED):
        keepers = [asyncio.create_task(backfiller_of(usage, archive, chunk_events=9).run()) for _ in range(3)]
        await member.count(gauge(tenant_a, dice.randrange(1_000, 1_000_000), dice.uniform(0, 2_000)))
        await asyncio.wait(keepers, timeout=dice.uniform(0.05, 0.4))
        for each in keepers:
            each.cancel()
        for found in await asyncio.gather(*keepers, return_exceptions=True):
            assert isinstance(found, asyncio.CancelledError), found
    assert await rows(usage, "late") == await rows(usage, "always")
    assert (await backfill(usage, "late"))["events"] == (await backfill(usage, "count"))["events"] == 300


async def test_a_relay_that_is_killed_leaves_the_rest_to_the_next(usage, tenant_a, archive):
    """Processes that get SIGKILL at whatever they are at, until one is left alone."""
    await usage.put_meter("first", {"event_type": "other", "aggregation": "count"})
    for n in range(20):
        day = (START - timedelta(days=n)).date()
        await archive.put_events(tenant_a.id, range(200), day=day, data={"v": n}, kind="gauge")
    since = START - timedelta(days=30)
    await usage.put_meter("late", {"event_type": "gauge", "aggregation": "count", "backfill_from": since.isoformat()})

    async def done(days: int) -> bool:
        state = await backfill(usage, "late")
        return bool(state["state"] == "finished" or days <= state["days_done"])

    for days in (1, 6, 1_000):
        process = await RoleProcess.start(
            "usage-relay", usage.environment() | {"USAGE_ARCHIVE_URL": archive.directory.as_uri()}
        )
        try:
            await eventually(partial(done, days), within=60)
        finally:
            await process.kill()
    state = await backfill(usage, "late")
    assert (state["state"], state["events"]) == ("finished", 4_000)
    assert sum(row[3] for row in await rows(usage, "late")) == 4_000


async def test_a_connection_that_is_cut_costs_a_step(usage, tenant_a, backfiller, after_locks):
    member = await Member.join(usage)
    await member.count(*[gauge(tenant_a, n, 10 * n) for n in range(20)])
    await ask(usage)

    async def cut() -> None:
        async with usage.database.connect() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'system.meter_backfill'::regclass"
                " AND mode = 'RowShareLock' AND pid <> pg_backend_pid()"
            )

    after_locks.append(cut)
    await finish(backfiller)
    assert not after_locks
    assert await rows(usage, "late") == []
    await finish(backfiller)
    assert sum(row[3] for row in await rows(usage, "late")) == 20
    assert (await backfill(usage, "late"))["events"] == 20


async def consistent(usage, slug: str) -> bool:
    """Whether every rollup of the meter is what its raw events make of it."""
    async with usage.databases.system_session() as session:
        [version] = await versions_of(session, slug)
    meter = CompiledMeter.of(version)
    keys = "SELECT tenant_id, window_start, group_hash, count FROM pool.usage_rollup WHERE meter_id = $1"
    async with usage.database.connect("system") as connection, connection.transaction():
        found = {
            (row[0].bytes, meter.key, microseconds(row[1]), row[2].bytes): row[3]
            for row in await connection.fetch(keys, version.id)
        }
        made = await recount(connection, dict.fromkeys(found, meter))
    return {key: row.count for key, row in made.items()} == found


@pytest.mark.parametrize("aggregation", ["count", "unique_count", "latest", "time_weighted"])
async def test_full_hours_stay_bounded_and_every_event_is_in_its_group(usage, tenant_a, archive, aggregation):
    """A worker remembers groups of an hour that a backfill gives others: when it is done, all is where it belongs."""
    member = await Member.join(usage)
    member.bound_groups(4)
    await member.count(*[gauge(tenant_a, n, n, disk=f"old-{n % 8}", v=n, user=f"u-{n}") for n in range(24)])
    await ask(usage, aggregation, group_by={"disk": "$.disk"})
    await member.count(*[gauge(tenant_a, 100 + n, 30 + n, disk=f"new-{n}", v=n) for n in range(2)])
    backfiller = backfiller_of(usage, archive, max_groups=4)
    while not (await backfill(usage, "late"))["events"]:
        assert await backfiller.turn()
    # It believes that there is room for these two, and none for the third, which has its rollup already.
    await member.count(
        *[gauge(tenant_a, 200 + n, 40, disk=disk, v=n) for n, disk in enumerate(("old-5", "old-6", "old-1"))]
    )
    assert not await consistent(usage, "late")
    await finish(backfiller)
    await member.count(gauge(tenant_a, 300, 7, disk="last"), gauge(tenant_a, 301, 8, disk="old-7"))
    assert await consistent(usage, "late")
    events = (await usage.fetch("SELECT count(*) FROM pool.usage_event"))[0][0]
    assert sum(row[3] for row in await rows(usage, "late")) == events
    groups = {row[2] for row in await rows(usage, "late")}
    assert '{"disk":"__other__"}' in groups
    assert len(groups) <= 2 * 4 + 1
