"""What is accepted and not counted is told: once for each tenant, kind, reason and day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tenantry import ManualClock, uuid7
from tenantry.testing import eventually
from usage_service.metering.rollups import RollupStore
from usage_service.not_counted.keeper import NotCountedKeeper

from .quotas import count, published, put, settle
from .support import API_CALLS, BANDWIDTH, event

NOW = datetime.now(UTC)


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture
def watch(usage, clock):
    return NotCountedKeeper(usage.databases, usage.state.directory, clock)


async def told(usage, watch):
    await watch.note()
    await watch.tell()
    alerts = await published(usage, "usage.alerts.v1")
    return [(body["tenant_id"], body["kind"], body["reason"]) for _, _, body in alerts if "kind" in body]


async def letter(usage, tenant, kind, *, meter=None, at=None):
    moment = at or datetime.now(UTC)
    letter_id = uuid7().hex if at is None else f"{int(at.timestamp() * 1000):012x}7{uuid7().hex[13:]}"
    await usage.fetch(
        "INSERT INTO pool.dead_letter (tenant_id, id, kind, reason, meter_id, received_at, payload, created_at)"
        " VALUES ($1, $2, $3, 'whatever it says', $4, $5, '', $5)",
        tenant.id, letter_id, kind, meter, moment,
    )  # fmt: skip


async def test_what_the_worker_could_not_count_is_told_once(usage, watch, tenant_a, tenant_b):
    await usage.put_meter("bandwidth", {**BANDWIDTH, "group_by": {}})
    async with usage.metering():
        bad = [event(tenant_a, number, data={"bytes": "many"}) for number in range(3)]
        unknown = [event(tenant_b, number, type=f"app.{number % 2}") for number in range(6)]
        await usage.send(*bad, *unknown)
        conflicting = event(tenant_b, 100)
        await usage.send(conflicting)
        await usage.send(conflicting | {"data": {"bytes": 5}})
        await eventually(usage.counted)
    expected = [
        (str(tenant_a.id), "invalid-value", "bandwidth"),
        (str(tenant_b.id), "conflict", ""),
        (str(tenant_b.id), "unmatched", "app.0"),
        (str(tenant_b.id), "unmatched", "app.1"),
    ]
    assert sorted(await told(usage, watch)) == sorted(expected)
    await letter(usage, tenant_a, "invalid-value", meter=(await usage.fetch("SELECT id FROM system.meter"))[0]["id"])
    another = NotCountedKeeper(usage.databases, usage.state.directory, ManualClock(NOW))
    assert sorted(await told(usage, another)) == sorted(expected)
    alerts = await published(usage, "usage.alerts.v1")
    [invalid] = [body for _, _, body in alerts if body["kind"] == "invalid-value"]
    assert (invalid["count"], invalid["day"], invalid["state"]) == ("3", NOW.date().isoformat(), "raised")
    assert sorted(version for key, version, _ in alerts if key == str(tenant_b.id)) == [1, 2, 3]


async def test_another_day_is_told_anew_and_reasons_apart(usage, watch, clock, tenant_a):
    await letter(usage, tenant_a, "late", at=NOW - timedelta(days=1))
    await letter(usage, tenant_a, "late", at=NOW)
    await letter(usage, tenant_a, "conflict", at=NOW)
    assert len(await told(usage, watch)) == 3
    clock.advance(timedelta(minutes=1))
    await letter(usage, tenant_a, "late", at=NOW + timedelta(seconds=30))
    assert len(await told(usage, watch)) == 3


async def test_a_full_window_is_told(usage, watch, tenant_a, monkeypatch):
    monkeypatch.setattr("usage_service.metering.worker.RollupStore", partial(RollupStore, max_groups=3))
    await usage.put_meter("api-calls", API_CALLS)
    async with usage.metering(members=1), usage.relaying():
        await usage.send(*(event(tenant_a, number, data={"path": f"/{number}"}) for number in range(9)))
        await eventually(usage.counted)
        await eventually(lambda: usage.fetch("SELECT FROM pool.not_counted"))
    assert await told(usage, watch) == [(str(tenant_a.id), "overflow", "api-calls")]


async def test_numbers_of_a_tenants_alerts_never_meet(usage, watch, quota, keeper, tenant_a):
    await letter(usage, tenant_a, "late")
    await told(usage, watch)
    await count(usage, tenant_a, 85)
    await settle(keeper)
    await letter(usage, tenant_a, "conflict")
    await told(usage, watch)
    await put(usage, tenant_a, "quotas/api-calls", {"limit": "200", "alerts": ["0.8"]})
    await settle(keeper)
    alerts = await published(usage, "usage.alerts.v1")
    assert [(version, body["state"]) for _, version, body in alerts] == [
        (1, "raised"),
        (2, "raised"),
        (3, "raised"),
        (4, "cleared"),
    ]


async def test_the_first_types_of_many_are_told_and_the_purged_are_forgotten(usage, watch, tenant_a, tenant_b):
    await usage.fetch(
        "INSERT INTO pool.unmatched_type SELECT $1, 'type-' || number, 1, now(), now()"
        " FROM generate_series(1, 60) AS number",
        tenant_a.id,
    )
    await letter(usage, tenant_b, "late")
    usage.state.directory.remove(tenant_b.id)
    assert len(await told(usage, watch)) == 20
    assert len(await told(usage, watch)) == 20
    assert await usage.fetch("SELECT FROM pool.not_counted WHERE tenant_id = $1", tenant_b.id) == []


async def test_a_telling_that_is_killed_tells_nothing_and_is_repeated(usage, watch, tenant_a, monkeypatch):
    await letter(usage, tenant_a, "late")
    await watch.note()

    async def killed(*_):
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr("usage_service.not_counted.keeper.append_outbox_many", killed)
        with pytest.raises(ConnectionError):
            await watch.tell()
    assert await published(usage, "usage.alerts.v1") == []
    assert len(await told(usage, watch)) == 1


async def test_old_notes_go_but_for_the_last_number(usage, watch, clock, tenant_a):
    for days in (500, 450):
        await usage.fetch(
            "INSERT INTO pool.not_counted VALUES ($1, $2, 'late', '', 1, $3)",
            tenant_a.id, (NOW - timedelta(days=days)).date(), 1000 - days,
        )  # fmt: skip
    await watch.note()
    [row] = await usage.fetch("SELECT number FROM pool.not_counted")
    assert row["number"] == 550
