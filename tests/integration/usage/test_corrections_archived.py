"""Corrections of events that the archive alone has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from archives import ArchiveWorld, SetClock

from tenantry import Tier
from tenantry.testing import eventually
from usage_service.archive.reading import ArchiveReader
from usage_service.corrections.archived import ArchivedCorrections

from .corrections import AGGREGATIONS, cancels, correct, figures, listed
from .support import API_CALLS, event


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
async def test_an_event_that_the_archive_alone_has_is_cancelled_there(usage, tenant_a, tmp_path, aggregation):
    value = {} if aggregation == "count" else {"value": "$.bytes"}
    await usage.put_meter("meter", {**API_CALLS, "aggregation": aggregation, **value, "group_by": {"path": "$.path"}})
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=60)
    archive = ArchiveWorld(usage.database, usage.databases, tmp_path, SetClock(datetime.now(UTC) + timedelta(days=50)))
    usage.state.directory.upsert_tier(Tier(name="standard", version=2, max_event_age_seconds=None))
    reader = ArchiveReader(usage.databases, archive.store)
    events = [
        event(
            tenant_a,
            number,
            time=(start + timedelta(minutes=9 * number)).isoformat(),
            data={"bytes": (7 * number) % 5, "path": "/"},
        )
        for number in range(6)
    ]
    span = {"from": start.isoformat(), "to": (start + timedelta(hours=1)).isoformat()}
    keeper = ArchivedCorrections(usage.databases.system, reader)
    async with usage.metering():
        await usage.send(*[each for number, each in enumerate(events) if number not in {0, 3}])
        await eventually(usage.counted, within=60)
        without = await figures(usage, tenant_a, "meter", window="hour", **span)
        await usage.send(events[0], events[3])
        await eventually(usage.counted, within=60)
        # What was received last may be about to come again, and stays until something else is.
        await usage.fetch("UPDATE system.partition_progress SET received_until = received_until + interval '1 minute'")
        await archive.keeper().sweep()
        assert await usage.fetch("SELECT FROM pool.usage_event") == []
        await correct(usage, *[cancels(tenant_a, number, time=events[number]["time"]) for number in (0, 3)])
        await correct(usage, cancels(tenant_a, 77, time=events[0]["time"]))
        await eventually(usage.counted, within=60)
        while await keeper.turn():
            pass
    assert await figures(usage, tenant_a, "meter", window="hour", **span) == without
    states = {each["cancels"]["id"]: each["state"] for each in await listed(usage, tenant_a)}
    assert states == {"e-0": "applied", "e-3": "applied", "e-77": "missing"}
    # Raw events at the edges of a window, and those behind a figure, come from the archive.
    usage.transport.app.state.archive = reader
    minutes = {"from": start.isoformat(), "to": (start + timedelta(minutes=59)).isoformat()}
    if aggregation != "time_weighted":
        assert await figures(usage, tenant_a, "meter", window="none", **minutes) == without
    behind = await usage.http.get("/v1/events", params={"meter": "meter", **span}, headers=usage.tenant_key(tenant_a))
    assert [each["id"] for each in behind.json()["items"]] == ["e-1", "e-2", "e-4", "e-5"]


async def archived_day(usage, world, tenant, days: int) -> str:
    """An event of so many days ago that the archive alone has; its time."""
    day = (datetime.now(UTC) - timedelta(days=days)).date()
    await world.put_events(tenant.id, [0], day=day, received=datetime.now(UTC) - timedelta(days=days - 1))
    return f"{day}T00:00:00Z"


async def test_an_object_that_is_away_holds_up_its_own_corrections_only(usage, tenant_a, tenant_b, tmp_path):
    await usage.put_meter("api-calls", API_CALLS)
    world = ArchiveWorld(usage.database, usage.databases, tmp_path, SetClock(datetime.now(UTC)))
    of_a, of_b = await archived_day(usage, world, tenant_a, 300), await archived_day(usage, world, tenant_b, 301)
    await usage.fetch("INSERT INTO system.partition_progress VALUES (0, clock_timestamp())")
    await world.keeper().sweep()
    assert await usage.fetch("SELECT FROM pool.usage_event") == []
    [lost] = [file for file in await world.files() if of_a[:10] in str(file)]
    kept = lost.read_bytes()
    lost.unlink()
    async with usage.metering():
        for tenant, time in ((tenant_a, of_a), (tenant_b, of_b)):
            answer = await correct(usage, cancels(tenant, 0, time=time))
            assert answer.status_code == 202, answer.text
            await eventually(usage.counted, within=60)
    keeper = ArchivedCorrections(usage.databases.system, ArchiveReader(usage.databases, world.store))
    while await keeper.turn():
        pass
    states = [[each["state"] for each in await listed(usage, tenant)] for tenant in (tenant_a, tenant_b)]
    # The event that was put there has another identity than its source and id give.
    assert states == [["waiting"], ["missing"]]
    lost.write_bytes(kept)
    assert not await keeper.turn()  # a minute later
    keeper._failed.clear()
    assert await keeper.turn()
    assert [each["state"] for each in await listed(usage, tenant_a)] == ["missing"]
