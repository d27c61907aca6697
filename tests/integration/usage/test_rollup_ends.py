"""Rollups end by age: hours become whole days with the same figures, and days go; what is gone is told, not guessed."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from archives import TERMS, SetClock
from obstore.store import LocalStore

from tenantry.testing import eventually
from usage_service.archive.archivist import Archivist
from usage_service.archive.store import ArchiveStore
from usage_service.retention.keeper import RetentionKeeper
from usage_service.retention.rollups import Ending, end_next

from .corrections import cancels, correct
from .support import event
from .test_erasure import METERS, ask, finish

DAY = date(2024, 3, 10)
NEXT = DAY + timedelta(days=1)
RECEIVED = datetime.now(UTC)
HOURS_OVER = RECEIVED + TERMS.hours + timedelta(days=2)
DAYS_OVER = RECEIVED + TERMS.days + timedelta(days=2)


def midnight(day: date) -> str:
    return f"{day}T00:00:00Z"


WHOLE: dict[str, Any] = {"from": midnight(DAY), "to": midnight(DAY + timedelta(days=2))}


@pytest.fixture
async def two_days(usage, tenant_a, tenant_b, tmp_path):
    """Two old days that were counted by meters of every aggregation, and a keeper on a clock of its own."""
    usage.archive = ArchiveStore(LocalStore(tmp_path), tmp_path)
    usage.clock = SetClock(RECEIVED)
    for slug, definition in METERS.items():
        await usage.put_meter(slug, definition)
    await count(usage, *events(tenant_a), *events(tenant_b))
    return usage


async def count(usage, *sent: dict[str, Any]) -> None:
    async with usage.metering():
        answer = await usage.send(*sent, headers=usage.operator, accept_late="true", billable="true")
        assert answer.status_code == 202, answer.text
        await eventually(usage.counted, within=60)


def events(tenant, numbers=range(60)) -> list[dict[str, Any]]:
    start = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    users = ("alice", "bob", "carol")
    return [
        event(
            tenant,
            number,
            time=(start + timedelta(minutes=47 * number)).isoformat(),
            data={"user": users[number % 3], "plan": "ab"[number % 2], "bytes": (number * 7) % 31},
        )
        for number in numbers
    ]


async def sweep(usage, moment: datetime) -> None:
    """Everything that is due by then, in as many turns as a keeper would take."""
    engine = usage.databases.system
    keeper = RetentionKeeper(
        engine,
        Archivist(engine, usage.archive),
        TERMS,
        usage.clock,
        migrator_url=usage.database.urls.migrator,
    )
    for step in (timedelta(days=3), timedelta(days=41), timedelta(days=42)):
        usage.clock.moment = max(usage.clock.moment, RECEIVED + step)
        await usage.fetch("UPDATE system.partition_progress SET received_until = $1", usage.clock.moment)
        await keeper.sweep()
    usage.clock.moment = max(usage.clock.moment, moment)
    await keeper.sweep()
    await keeper.sweep()


async def figures(usage, tenant, **params) -> dict[str, Any]:
    found = {}
    for slug, definition in METERS.items():
        grouped = {"group_by": list(definition["group_by"])} if "group_by" in definition else {}
        answer = await usage.query(tenant, slug, **{**WHOLE, **params}, **grouped)
        found[slug] = [(item["window_start"], item["group"], item["value"]) for item in answer["items"]]
    return found


async def asked(usage, tenant, slug="calls", **params):
    params = {"tenant_id": str(tenant.id), **WHOLE, **params}
    return await usage.http.get(f"/v1/meters/{slug}/query", params=params, headers=usage.operator)


async def forms(usage, tenant) -> set[tuple[bool, int]]:
    rows = await usage.fetch(
        "SELECT whole_day, extract(hour FROM window_start AT TIME ZONE 'UTC') AS hour FROM pool.usage_rollup"
        " WHERE tenant_id = $1",
        tenant.id,
    )
    return {(row["whole_day"], int(row["hour"])) for row in rows}


async def test_hours_become_days_with_the_same_figures(two_days, tenant_a):
    usage = two_days
    spans: list[dict[str, Any]] = [{"window": "day"}, {}, {"window": "month"}, {"from": midnight(NEXT)}]
    before = [await figures(usage, tenant_a, **span) for span in spans]
    queued = await usage.fetch("SELECT id FROM system.rollup_change")
    await sweep(usage, RECEIVED + TERMS.hours - timedelta(days=5))
    assert len(await forms(usage, tenant_a)) > 20
    await sweep(usage, HOURS_OVER)
    assert await forms(usage, tenant_a) == {(True, 0)}
    assert [await figures(usage, tenant_a, **span) for span in spans] == before
    # What was published stays as it was: the topic has hours only.
    assert await usage.fetch("SELECT id FROM system.rollup_change") == queued
    [[hours]] = await usage.fetch(
        "SELECT count(*) FROM pool.usage_unique_value WHERE extract(hour FROM window_start AT TIME ZONE 'UTC') <> 0"
    )
    assert hours == 0


@pytest.mark.parametrize(
    "span",
    [
        {"window": "hour"},
        {"from": f"{DAY}T05:00:00Z"},
        {"to": f"{NEXT}T05:00:00Z"},
        {"window": "day", "timezone": "Europe/Berlin"},
        {"window": "minute", "to": midnight(NEXT)},
        {"from": f"{DAY}T05:30:00Z"},
        {"filter[$.bytes][gte]": "5"},
    ],
)
async def test_a_question_that_cuts_a_day_is_told(two_days, tenant_a, tenant_b, span):
    usage = two_days
    assert (await asked(usage, tenant_a, **span)).status_code == 200
    await sweep(usage, HOURS_OVER)
    for slug in ("calls", "users", "weighted", "last"):
        if slug == "weighted" and "filter[$.bytes][gte]" in span:
            continue
        response = await asked(usage, tenant_a, slug, **span)
        assert (response.status_code, response.json()["type"].rsplit("/", 1)[-1]) == (410, "figures-ended")
    await usage.fetch("DELETE FROM pool.usage_rollup WHERE tenant_id = $1", tenant_b.id)
    assert (await asked(usage, tenant_b, **span)).status_code == 200  # who had nothing there loses nothing


async def test_an_hour_without_samples_cuts_no_series(two_days, tenant_a):
    """A correction has left it empty, between two others of the series."""
    usage = two_days
    async with usage.metering():
        # Of one group, whose samples are hours apart.
        answer = await correct(
            usage, *[cancels(tenant_a, each, time=events(tenant_a)[each]["time"]) for each in (6, 18)]
        )
        assert answer.status_code == 202, answer.text
        await eventually(usage.counted, within=60)
    [[empty]] = await usage.fetch(
        "SELECT count(*) FROM pool.usage_rollup JOIN system.meter ON id = meter_id"
        " WHERE slug = 'weighted' AND count = 0"
    )
    assert empty == 2
    before = await figures(usage, tenant_a, window="day")
    await sweep(usage, HOURS_OVER)
    assert await forms(usage, tenant_a) == {(True, 0)}
    assert await figures(usage, tenant_a, window="day") == before


async def test_a_day_on_which_a_meter_changed_stays_what_it_was(usage, tenant_a, tmp_path):
    """Both versions have a row at its midnight then."""
    usage.archive = ArchiveStore(LocalStore(tmp_path), tmp_path)
    usage.clock = SetClock(RECEIVED)
    for slug, definition in METERS.items():
        await usage.put_meter(slug, definition)
    await count(usage, *events(tenant_a, range(20)))
    for slug, definition in METERS.items():
        await usage.put_meter(slug, {**definition, "filter": {"$.plan": {"in": ["a", "b"]}}})
    await count(usage, *events(tenant_a, range(20, 60)))
    before = await figures(usage, tenant_a, window="day")
    await sweep(usage, HOURS_OVER)
    assert await forms(usage, tenant_a) == {(True, 0)}
    assert await figures(usage, tenant_a, window="day") == before


async def test_days_end_and_are_not_answered_with_nothing(two_days, tenant_a):
    usage = two_days
    disks = (await asked(usage, tenant_a, "weighted")).json()["items"]
    after = {"from": midnight(DAY + timedelta(days=2)), "to": midnight(DAY + timedelta(days=3))}
    carried = (await asked(usage, tenant_a, "weighted", **after)).json()["items"]
    await sweep(usage, HOURS_OVER)
    await sweep(usage, DAYS_OVER)
    refused = await asked(usage, tenant_a)
    assert (refused.status_code, str(DAY + timedelta(days=2)) in refused.json()["detail"]) == (410, True)
    assert (await asked(usage, tenant_a, **after)).status_code == 200
    # Raw events of these days have ended with them, and nothing tells any more that there were some.
    until = {"to": f"{DAY + timedelta(days=2)}T00:30:00Z"}
    for raw in (
        {"window": "minute", "to": midnight(NEXT)},
        {"filter[$.bytes][gte]": "5"},
        {"received_before": datetime.now(UTC).isoformat()},
        {"from": f"{NEXT}T23:30:00Z", **until},
        {"from": f"{NEXT}T23:10:00Z", "to": f"{NEXT}T23:30:00Z"},
    ):
        assert (await asked(usage, tenant_a, **raw)).status_code == 410, raw
    # The value of a disk that nobody has resized since holds for ever.
    assert (await asked(usage, tenant_a, "weighted", **after)).json()["items"] == carried != disks
    left = await usage.fetch(
        "SELECT DISTINCT slug FROM pool.usage_rollup JOIN system.meter ON meter_id = meter.id WHERE tenant_id = $1",
        tenant_a.id,
    )
    assert [row["slug"] for row in left] == ["weighted"]
    assert await usage.fetch("SELECT FROM pool.usage_unique_value WHERE tenant_id = $1", tenant_a.id) == []


async def test_a_meter_of_a_quota_keeps_its_hours(two_days, tenant_a, tenant_b):
    usage = two_days
    quota = {"limit": 1000, "period": "month"}
    put = await usage.http.put(f"/v1/tenants/{tenant_a.id}/quotas/calls", json=quota, headers=usage.operator)
    assert put.status_code == 200, put.text
    await sweep(usage, HOURS_OVER)
    assert (await asked(usage, tenant_a, window="hour")).status_code == 200
    assert (await asked(usage, tenant_b, window="hour")).status_code == 410
    assert (await asked(usage, tenant_a, "volume", window="hour")).status_code == 410
    await sweep(usage, DAYS_OVER)
    assert len((await asked(usage, tenant_a, window="hour")).json()["items"]) > 20
    assert (await asked(usage, tenant_a, "volume", window="day")).status_code == 410


async def test_what_would_end_is_shown(two_days, tenant_a):
    usage = two_days
    await sweep(usage, RECEIVED + TERMS.hours + timedelta(hours=1))
    # The archive's objects have gone with the first sweep, and so have the hours; the days have time.
    params = {"at": (RECEIVED + TERMS.days + timedelta(days=1)).isoformat()}
    shown = (await usage.http.get("/v1/retention", params=params, headers=usage.operator)).json()
    assert shown["rollup_days"] == [str(DAY), str(NEXT)]
    assert shown["rollup_hours"] == []
    stays = {each["what"]: each["days"] for each in shown["stays"]}
    assert (stays["rollups of hours"], stays["rollups of whole days"]) == (396, 1_096)
    assert stays["topic usage.events.v1"] == 7


async def test_a_person_is_erased_from_whole_days_too(two_days, tenant_a):
    usage = two_days
    await sweep(usage, HOURS_OVER)
    before = await figures(usage, tenant_a, window="day")
    queued = await usage.fetch("SELECT id FROM system.rollup_change")
    done = await finish(usage, (await ask(usage, tenant_a, values=["alice"])).json()["id"])
    assert done["rows"]["usage_rollup"] > 5
    after = await figures(usage, tenant_a, window="day")
    assert "alice" not in repr(after)
    assert unnamed(after) == unnamed(before)
    # A whole day is not published as if it were an hour.
    assert await usage.fetch("SELECT id FROM system.rollup_change") == queued


async def test_a_person_is_erased_from_a_day_that_is_ending(two_days, tenant_a, monkeypatch):
    """The erasure does not read hours that are about to be a day."""
    usage = two_days
    with monkeypatch.context() as patch:
        patch.setattr(RetentionKeeper, "_end_rollups", nothing)
        await sweep(usage, HOURS_OVER)
    before = await figures(usage, tenant_a, window="day")
    erasure_id = (await ask(usage, tenant_a, values=["alice"])).json()["id"]
    async with usage.databases.system.connect() as ending:
        ended = await end_next(ending, Ending.HOURS, HOURS_OVER - TERMS.hours, HOURS_OVER)
        assert ended is not None
        erasing = asyncio.create_task(finish(usage, erasure_id))
        await eventually(lambda: waits(usage), within=30, interval=0.05)
        await ending.commit()
        await erasing
    after = await figures(usage, tenant_a, window="day")
    assert "alice" not in repr(after)
    assert unnamed(after) == unnamed(before)


def unnamed(found: dict[str, Any]) -> dict[str, Any]:
    return {slug: sorted((start, value) for start, _, value in rows) for slug, rows in found.items()}


async def nothing(_keeper) -> None:
    """In the place of a step."""


async def waits(usage) -> bool:
    """Whether a statement waits for what another transaction holds."""
    [[waiting]] = await usage.fetch(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(waiting)
