"""A meter that counts what was stored before it says what one says that was there from the start."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from .backfills import KIND, METERS, SPAN, START, backfill, backfiller_of, definition, finish, gauge, rows, sample
from .batches import Member
from .support import event


@pytest.mark.parametrize("aggregation", METERS)
async def test_it_counts_what_a_meter_that_was_there_has_counted(usage, tenant_a, tenant_b, backfiller, aggregation):
    dice = random.Random(aggregation)  # noqa: S311 (a test's dice)
    member = await Member.join(usage)
    await usage.put_meter("always", definition(aggregation))
    before = sample([tenant_a, tenant_b], dice, range(150))
    for start in range(0, 150, 50):
        await member.count(*before[start : start + 50])
    put = await usage.put_meter("late", {**definition(aggregation), "backfill_from": START.isoformat()})
    assert put["backfill"]["state"] == "waiting"
    await member.count(*sample([tenant_a, tenant_b], dice, range(150, 200)))
    await finish(backfiller)
    await member.count(*sample([tenant_a, tenant_b], dice, range(200, 250)))

    assert await rows(usage, "late") == await rows(usage, "always") != []
    done = await backfill(usage, "late")
    assert (done["state"], done["days_done"]) == ("finished", done["days"])
    for tenant in (tenant_a, tenant_b):
        always, late = [
            (await usage.query(tenant, slug, window="hour", **SPAN))["items"] for slug in ("always", "late")
        ]
        assert [(each["window_start"], each["value"]) for each in late] == [
            (each["window_start"], each["value"]) for each in always
        ]


async def test_what_is_older_than_asked_is_not_counted(usage, tenant_a, backfiller):
    member = await Member.join(usage)
    await member.count(*[gauge(tenant_a, number, 60 * number) for number in range(10)])
    asked = START + timedelta(hours=5)
    await usage.put_meter("late", {**definition("count"), "backfill_from": asked.isoformat()})
    await finish(backfiller)
    [item] = (await usage.query(tenant_a, "late", **SPAN))["items"]
    assert item["value"] == "5"
    # Raw events say the same: those before are counted by no version.
    [ragged] = (await usage.query(tenant_a, "late", **{**SPAN, "from": (START + timedelta(minutes=1)).isoformat()}))[
        "items"
    ]
    assert ragged["value"] == "5"
    listed = (await usage.http.get(item["events"], headers=usage.operator)).json()["items"]
    assert len(listed) == 5


@pytest.mark.parametrize("aggregation", ["count", "time_weighted"])
async def test_a_backfill_reaches_back_farther_when_it_is_asked_again(usage, tenant_a, backfiller, aggregation):
    member = await Member.join(usage)
    await usage.put_meter("always", definition(aggregation))
    await member.count(*[gauge(tenant_a, number, 25 * number) for number in range(40)])
    for hours in (13.5, 10, 0):
        asked = (START + timedelta(hours=hours)).isoformat()
        await usage.put_meter("late", {**definition(aggregation), "backfill_from": asked})
        if hours != 10:  # it is extended before it has begun, too
            await finish(backfiller)
    assert await rows(usage, "late") == await rows(usage, "always")
    done = await backfill(usage, "late")
    assert (done["state"], done["events"]) == ("finished", 40)
    assert datetime.fromisoformat(done["from"]) == START


async def test_what_cannot_be_counted_is_refused(usage, tenant_a):
    def put(**changes: Any):
        return usage.http.put("/v1/meters/late", json={**definition("sum"), **changes}, headers=usage.operator)

    assert (await put(backfill_from="2026-01-01T00:00:00")).status_code == 422
    assert (await put(backfill_from="1066-10-14T00:00:00Z")).status_code == 422
    assert (await put(backfill_from=(datetime.now(UTC) + timedelta(days=1)).isoformat())).status_code == 422
    assert (await put(backfill_from=START.isoformat())).status_code == 200
    later = await put(backfill_from=(START + timedelta(days=1)).isoformat())
    assert (later.status_code, later.json()["type"]) == (409, "meter-fixed")
    changed = await put(unit="byte", backfill_from=(START - timedelta(days=1)).isoformat())
    assert (changed.status_code, changed.json()["type"]) == (409, "meter-fixed")
    assert "closed" in changed.json()["detail"] or "counted before" in changed.json()["detail"]
    assert (await put(backfill_from=START.isoformat())).json()["version"] == 1
    assert (await put(unit="byte")).json()["version"] == 2
    # The first version is what a backfill is of, and an unchanged meter can still be given one.
    assert (await put(unit="byte", backfill_from=(START - timedelta(days=1)).isoformat())).status_code == 200
    assert (await usage.fetch("SELECT count(*) FROM system.meter_backfill"))[0][0] == 2


async def test_answers_say_that_they_are_not_complete(usage, tenant_a, backfiller):
    member = await Member.join(usage)
    await member.count(gauge(tenant_a, 1, 60), gauge(tenant_a, 2, 60 * 30))
    await usage.put_meter("other", definition("count"))
    await usage.put_meter("late", {**definition("count"), "backfill_from": START.isoformat()})
    await usage.put_meter("series", {**definition("time_weighted"), "backfill_from": START.isoformat()})
    days = [
        {"from": (START + timedelta(days=n)).isoformat(), "to": (START + timedelta(days=n + 1)).isoformat()}
        for n in (0, 1)
    ]

    async def complete() -> list[bool]:
        return [(await usage.query(tenant_a, slug, **day))["complete"] for slug in ("late", "series") for day in days]

    assert await complete() == [False] * 4
    both = {"tenant_id": str(tenant_a.id), "meter": ["late", "other"], **SPAN}
    answer = await usage.http.get("/v1/query", params=both, headers={**usage.operator, "Accept": "text/csv"})
    assert answer.headers["usage-complete"] == "false"
    answer = await usage.http.get("/v1/query", params=both, headers=usage.operator)
    assert [each["complete"] for each in answer.json()["meters"]] == [False, True]
    seen = []
    while await backfiller.turn():
        seen.append(tuple(await complete()))
    # Days are counted from the last one on; a value that is carried may come from any day.
    assert (False, True, False, False) in seen
    assert await complete() == [True] * 4
    state = await backfill(usage, "late")
    assert state["finished_at"] is not None
    [listed] = [
        each
        for each in (await usage.http.get("/v1/meters", headers=usage.operator)).json()["items"]
        if each["slug"] == "late"
    ]
    assert listed["backfill"] == state


async def test_what_was_unmatched_is_taken_off_the_list_once(usage, tenant_a, tenant_b, backfiller):
    member = await Member.join(usage)
    await member.count(*[gauge(tenant, n, 60 * n) for tenant in (tenant_a, tenant_b) for n in range(10)])
    await member.count(event(tenant_a, 100, type="other"))

    async def left(kind: str = KIND) -> int:
        items = (await usage.http.get("/v1/unmatched-types", headers=usage.operator)).json()["items"]
        return sum(int(each["count"]) for each in items if each["type"] == kind)

    assert await left() == 20
    for slug, hours, expected in (("a", 6, 12), ("b", 3, 6), ("b", 1, 2), ("a", 2, 2), ("c", 4, 2), ("a", 0, 0)):
        asked = (START + timedelta(hours=hours)).isoformat()
        await usage.put_meter(slug, {**definition("count"), "backfill_from": asked})
        await finish(backfiller)
        assert await left() == expected, (slug, hours)
    assert await left("other") == 1


@pytest.mark.parametrize("meanwhile", ["a tenant comes", "the tenant is purged"])
async def test_the_hours_that_are_done_are_those_of_one_tenant(usage, tenant_a, tenant_b, archive, meanwhile):
    member = await Member.join(usage)
    first, second = sorted((tenant_a, tenant_b), key=lambda tenant: tenant.id)
    busy, other = (second, first) if meanwhile == "a tenant comes" else (first, second)
    await member.count(*[gauge(busy, n, 60 * n) for n in range(24)], gauge(busy, 99, -60))
    if busy is first:
        await member.count(*[gauge(other, n, 60 * n) for n in range(24)])
    await usage.put_meter("late", {**definition("count"), "backfill_from": START.isoformat()})
    backfiller = backfiller_of(usage, archive, chunk_events=5)

    async def hours() -> int:
        [[done]] = await usage.fetch("SELECT hours FROM system.meter_backfill")
        return done

    while not await hours():
        assert await backfiller.turn()
    if busy is second:
        await member.count(*[gauge(other, n, 60 * n) for n in range(24)])
    else:
        await usage.fetch("DELETE FROM pool.usage_event WHERE tenant_id = $1", busy.id)
        await usage.fetch("DELETE FROM pool.usage_rollup WHERE tenant_id = $1", busy.id)
        await usage.fetch("DELETE FROM pool.unmatched_type WHERE tenant_id = $1", busy.id)
    await finish(backfiller)
    counted = {row[0]: 0 for row in await rows(usage, "late")}
    for row in await rows(usage, "late"):
        counted[row[0]] += row[3]
    left = {
        row["tenant_id"]: row["count"] for row in await usage.fetch("SELECT tenant_id, count FROM pool.unmatched_type")
    }
    if busy is second:
        assert (counted, left) == ({busy.id: 24, other.id: 24}, {busy.id: 1})
        assert (await backfill(usage, "late"))["events"] == 24
    else:
        assert (counted, left) == ({other.id: 24}, {})


QUEUED = """
SELECT DISTINCT key.tenant_id, key.window_start, key.group_hash
  FROM system.rollup_change AS change
 CROSS JOIN LATERAL unnest(change.tenant_ids, change.meter_ids, change.window_starts, change.group_hashes)
       AS key (tenant_id, meter_id, window_start, group_hash)
  JOIN system.meter AS meter ON meter.id = key.meter_id
 WHERE meter.slug = 'late'
"""


async def test_what_it_changes_is_published_and_nothing_else(usage, tenant_a, tenant_b, backfiller):
    dice = random.Random(7)  # noqa: S311 (a seed that is repeated)
    member = await Member.join(usage)
    await member.count(*sample([tenant_a, tenant_b], dice, range(60)))
    await usage.put_meter("late", {**definition("sum"), "backfill_from": (START + timedelta(hours=20)).isoformat()})
    await finish(backfiller)
    stored = "SELECT tenant_id, window_start, group_hash FROM pool.usage_rollup"
    queued = set(map(tuple, await usage.fetch(QUEUED)))
    assert queued == set(map(tuple, await usage.fetch(stored))) != set()

    await usage.fetch("DELETE FROM system.rollup_change")
    versions = dict(await usage.fetch("SELECT ctid::text, version FROM pool.usage_rollup"))
    await usage.put_meter("late", {**definition("sum"), "backfill_from": START.isoformat()})
    await finish(backfiller)
    # The days that were counted already are as they were.
    new = {tuple(row) for row in await usage.fetch(stored)} - queued
    assert new
    assert set(map(tuple, await usage.fetch(QUEUED))) == new
    assert set(versions.values()) == {1}
