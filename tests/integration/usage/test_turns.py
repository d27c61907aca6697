"""Balances and alerts that time brings about, that come late, or that cannot be worked out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tenantry import ManualClock
from tenantry.testing import eventually
from usage_service.archive.reading import ArchiveReader
from usage_service.entitlements.balances import BalanceKeeper

from .quotas import count, post, published, put, set_clock, settle, value
from .support import API_CALLS, BANDWIDTH, event

MIDNIGHT = datetime(2026, 5, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def daily(usage, keeper, tenant_a):
    """A quota of 100 a day, that alerts, of a tenant who lives on the tenth of May."""
    await usage.put_meter("api-calls", API_CALLS)
    set_clock(usage, tenant_a, MIDNIGHT + 10 * HOUR)
    body = {"limit": "100", "period": "day", "alerts": ["0.8"]}
    assert (await put(usage, tenant_a, "quotas/api-calls", body)).status_code == 200
    await settle(keeper)


async def test_what_lasts_is_used_up_without_any_event(usage, keeper, tenant_a):
    await usage.put_meter("storage", {**BANDWIDTH, "aggregation": "time_weighted"})
    set_clock(usage, tenant_a, MIDNIGHT)
    body = {"limit": "1000", "period": "month", "alerts": ["1"]}
    assert (await put(usage, tenant_a, "quotas/storage", body)).status_code == 200
    async with usage.metering():
        await usage.send(event(tenant_a, 1, time=MIDNIGHT.isoformat(), data={"bytes": 100}))
        await eventually(usage.counted)
    await usage.fetch("INSERT INTO system.balance_change (tenant_id, feature) VALUES ($1, 'storage')", tenant_a.id)
    await settle(keeper)
    set_clock(usage, tenant_a, MIDNIGHT + 11 * HOUR)
    assert await keeper.queue_turns() == 1
    await settle(keeper)
    [(_, _, alert)] = await published(usage, "usage.alerts.v1")
    assert (alert["usage"], alert["threshold"]) == ("1100", "1")
    assert (await published(usage, "usage.balances.v1"))[-1][2]["has_access"] is False


async def test_what_happens_ahead_of_the_clock_is_used_when_its_hour_comes(usage, daily, keeper, tenant_a):
    set_clock(usage, tenant_a, MIDNIGHT + 11 * HOUR - timedelta(minutes=5))
    await count(usage, tenant_a, 7, at=MIDNIGHT + 11 * HOUR)
    await settle(keeper)
    assert (await published(usage, "usage.balances.v1"))[-1][2]["usage"] == "0"
    assert await keeper.queue_turns() == 0
    set_clock(usage, tenant_a, MIDNIGHT + 11 * HOUR)
    assert await keeper.queue_turns() == 1
    await settle(keeper)
    assert (await published(usage, "usage.balances.v1"))[-1][2]["usage"] == "7"
    assert (await value(usage, tenant_a))["usage"] == "7"


async def test_a_crossing_is_told_however_late_it_is_worked_out(usage, daily, keeper, tenant_a):
    await count(usage, tenant_a, 85, at=MIDNIGHT + 10 * HOUR)
    await count(usage, tenant_a, 90, at=MIDNIGHT + 30 * HOUR)
    await count(usage, tenant_a, 9, at=MIDNIGHT + 60 * HOUR)
    set_clock(usage, tenant_a, MIDNIGHT + 74 * HOUR)
    await settle(keeper)
    alerts = [(body["usage"], body["period_start"][:10]) for _, _, body in await published(usage, "usage.alerts.v1")]
    assert alerts == [("85", "2026-05-10"), ("90", "2026-05-11")]
    await usage.fetch("INSERT INTO system.balance_change (tenant_id, feature) VALUES ($1, 'api-calls')", tenant_a.id)
    await settle(keeper)
    assert len(await published(usage, "usage.alerts.v1")) == 2


async def test_a_balance_that_fails_holds_up_no_other(usage, quota, archive, tenant_a, tenant_b, monkeypatch):
    clock = ManualClock(datetime.now(UTC))
    keeper = BalanceKeeper(usage.databases, usage.state.directory, clock, ArchiveReader(usage.databases, archive.store))
    await put(usage, tenant_b, "quotas/api-calls", {"limit": "5"})
    await settle(keeper)
    measure = BalanceKeeper._work_out.__globals__["measure"]

    async def failing(session, asked, archive):
        if any(each.tenant_id == tenant_b.id for each in asked):
            raise ValueError
        return await measure(session, asked, archive)

    with monkeypatch.context() as patch:
        patch.setattr("usage_service.entitlements.balances.measure", failing)
        await count(usage, tenant_b, 3)
        await count(usage, tenant_a, 85)
        await settle(keeper)
        assert (await published(usage, "usage.balances.v1"))[-1][2]["usage"] == "85"
        assert len(await published(usage, "usage.alerts.v1")) == 1
        # What stands in the queue would keep the watermark of all from moving.
        assert await usage.fetch("SELECT FROM system.balance_change") == []
        assert await keeper.queue_turns() == 0
    clock.advance(timedelta(minutes=2))
    assert await keeper.queue_turns() == 1
    await settle(keeper)
    balances = [(key, body["usage"]) for key, _, body in await published(usage, "usage.balances.v1")]
    assert (f"{tenant_b.id}/api-calls", "3") in balances


async def test_an_alert_ends_with_the_reset_of_its_period(usage, daily, keeper, tenant_a):
    await count(usage, tenant_a, 85, at=MIDNIGHT + 10 * HOUR)
    await settle(keeper)
    set_clock(usage, tenant_a, MIDNIGHT + 12 * HOUR)
    assert (await post(usage, tenant_a, "entitlements/api-calls/reset", {})).status_code == 200
    for used in (0, 90, 91):
        await count(usage, tenant_a, used, at=MIDNIGHT + 12 * HOUR)
        await settle(keeper)
    alerts = [
        (body["state"], body["usage"], body["period_start"][11:16])
        for _, _, body in await published(usage, "usage.alerts.v1")
    ]
    assert alerts == [("raised", "85", "00:00"), ("cleared", "85", "00:00"), ("raised", "90", "12:00")]
