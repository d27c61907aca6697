"""Thresholds that are crossed, and those that are not any more: each told once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from tenantry import (
    SystemClock,
    Tenant,
    TenantClock,
    uuid7,
)
from tenantry.testing import eventually
from usage_service.not_counted.keeper import NotCountedKeeper

from .quotas import NOW, count, published, put, settle
from .support import API_CALLS, BANDWIDTH, event


def told(alerts):
    return [(body["threshold"], body["state"], body["sequence"], body["usage"]) for _, _, body in alerts]


async def test_a_crossing_is_told_once_and_so_is_its_end(usage, quota, keeper, tenant_a):
    for used in (79, 80, 81, 60, 59, 85, 100, 10):
        await count(usage, tenant_a, used)
        await settle(keeper)
        await usage.fetch(
            "INSERT INTO system.balance_change (tenant_id, feature) VALUES ($1, 'api-calls')", tenant_a.id
        )
        await settle(keeper)
    alerts = await published(usage, "usage.alerts.v1")
    assert told(alerts) == [
        ("0.8", "raised", 1, "80"),
        ("0.8", "cleared", 2, "60"),
        ("0.8", "raised", 3, "85"),
        ("1", "raised", 1, "100"),
        ("0.8", "cleared", 4, "10"),
        ("1", "cleared", 2, "10"),
    ]
    assert [version for _, version, _ in alerts] == [1, 2, 3, 4, 5, 6]
    assert len({(body["id"], body["threshold"]) for _, _, body in alerts}) == 2


async def test_an_alert_of_before_alerts_were_withdrawn_is_not_told_again(usage, quota, keeper, tenant_a):
    await count(usage, tenant_a, 85)
    await settle(keeper)
    await usage.fetch("UPDATE pool.entitlement_alert SET resets_at = NULL")
    await count(usage, tenant_a, 86)
    await settle(keeper)
    assert told(await published(usage, "usage.alerts.v1")) == [("0.8", "raised", 1, "85")]


async def test_a_limit_that_moves_moves_its_alerts(usage, quota, keeper, tenant_a):
    await count(usage, tenant_a, 100)
    await settle(keeper)
    terms = {"limit": "120", "alerts": ["0.8", "1.0"]}
    await put(usage, tenant_a, "quotas/api-calls", terms)
    await settle(keeper)
    await put(usage, tenant_a, "quotas/api-calls", {**terms, "limit": "90"})
    await settle(keeper)
    alerts = await published(usage, "usage.alerts.v1")
    assert [(body["threshold"], body["state"], body["limit"]) for _, _, body in alerts] == [
        ("0.8", "raised", "100"),
        ("1", "raised", "100"),
        ("1", "cleared", "120"),
        ("1", "raised", "90"),
    ]


async def test_what_is_taken_away_alerts_no_more(usage, quota, keeper, tenant_a):
    await count(usage, tenant_a, 100)
    await settle(keeper)
    await put(usage, tenant_a, "quotas/api-calls", {"limit": "100", "alerts": ["1.0"]})
    await settle(keeper)
    await usage.http.delete(f"/v1/tenants/{tenant_a.id}/quotas/api-calls", headers=usage.operator)
    for _ in range(2):
        await usage.fetch(
            "INSERT INTO system.balance_change (tenant_id, feature) VALUES ($1, 'api-calls')", tenant_a.id
        )
        await settle(keeper)
    alerts = await published(usage, "usage.alerts.v1")
    assert told(alerts)[2:] == [("0.8", "cleared", 2, "100"), ("1", "cleared", 2, None)]
    await put(usage, tenant_a, "quotas/api-calls", {"limit": "100", "alerts": ["1.0"]})
    await settle(keeper)
    assert told(await published(usage, "usage.alerts.v1"))[4:] == [("1", "raised", 3, "100")]


async def test_a_gauge_does_not_flap(usage, keeper, tenant_a):
    await usage.put_meter("load", {**BANDWIDTH, "aggregation": "latest"})
    await put(usage, tenant_a, "quotas/load", {"limit": "100", "period": "month", "alerts": ["0.8"]})
    async with usage.metering():
        for number, value in enumerate((80, 79, 73, 81, 71, 80)):
            await usage.send(event(tenant_a, number, time=f"{NOW.isoformat()[:17]}0{number}Z", data={"bytes": value}))
            await eventually(usage.counted)
            await usage.fetch("INSERT INTO system.balance_change (tenant_id, feature) VALUES ($1, 'load')", tenant_a.id)
            await settle(keeper)
    assert told(await published(usage, "usage.alerts.v1")) == [
        ("0.8", "raised", 1, "80"),
        ("0.8", "cleared", 2, "71"),
        ("0.8", "raised", 3, "80"),
    ]


async def test_a_period_that_is_over_resets_by_the_clock_and_alerts_for_its_last_usage(usage, keeper, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    midnight = datetime(2026, 5, 10, tzinfo=UTC)
    clock_id = uuid7()

    def clocked(now: datetime, version: int) -> Tenant:
        return msgspec.structs.replace(tenant_a, clock=TenantClock(clock_id, now), version=tenant_a.version + version)

    usage.state.directory.upsert(clocked(midnight - timedelta(hours=2), 1))
    body = {"limit": "10", "period": "day", "alerts": ["1"]}
    assert (await put(usage, tenant_a, "quotas/api-calls", body)).status_code == 200
    await settle(keeper)
    assert await keeper.queue_turns() == 0
    assert await keeper.step() == 0
    usage.state.directory.upsert(clocked(midnight + timedelta(minutes=1), 2))
    await count(usage, tenant_a, 12, at=midnight - timedelta(hours=1))
    assert [await keeper.queue_turns() for _ in range(2)] == [1, 0]
    await settle(keeper)
    [(_, _, alert)] = await published(usage, "usage.alerts.v1")
    assert (datetime.fromisoformat(alert["resets_at"]), alert["state"]) == (midnight, "raised")
    last = (await published(usage, "usage.balances.v1"))[-1][2]
    assert (last["balance"], datetime.fromisoformat(last["period_start"])) == ("10", midnight)
    # What the period crossed stays said, but for a correction that comes while it is still looked at.
    usage.state.directory.upsert(clocked(midnight + timedelta(hours=3), 3))
    await count(usage, tenant_a, 12, at=midnight - timedelta(hours=1))
    await settle(keeper)
    assert len(await published(usage, "usage.alerts.v1")) == 1
    usage.state.directory.upsert(clocked(midnight + timedelta(minutes=30), 4))
    await count(usage, tenant_a, 3, at=midnight - timedelta(hours=1))
    await settle(keeper)
    assert told(await published(usage, "usage.alerts.v1"))[1:] == [("1", "cleared", 2, "3")]


async def test_old_alerts_go_but_for_the_last_number(usage, quota, keeper, tenant_a):
    await count(usage, tenant_a, 100)
    await settle(keeper)
    long_ago = datetime.now(UTC) - timedelta(days=500)
    await usage.fetch("UPDATE pool.entitlement_alert SET resets_at = $1, period_start = $1", long_ago)
    await NotCountedKeeper(usage.databases, usage.state.directory, SystemClock()).note()
    [row] = await usage.fetch("SELECT number, threshold FROM pool.entitlement_alert")
    assert (row["number"], row["threshold"]) == (2, 1)
    await usage.fetch("INSERT INTO system.balance_change (tenant_id, feature) VALUES ($1, 'api-calls')", tenant_a.id)
    await settle(keeper)
    assert [version for _, version, _ in await published(usage, "usage.alerts.v1")] == [1, 2, 3, 4]
