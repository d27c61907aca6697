"""What cannot be told of one quota holds up no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from usage_service.queries import kept

from .quotas import count, get, put, settle, value


@pytest.fixture
async def disks(usage, tenant_a):
    """A quota on a time-weighted meter."""
    await usage.put_meter("disks", {"event_type": "disk", "aggregation": "time_weighted", "value": "$.size"})
    answer = await put(usage, tenant_a, "quotas/disks", {"limit": "100", "period": "month"})
    assert answer.status_code == 200, answer.text


async def test_a_balance_that_cannot_be_told_is_put_off(usage, quota, disks, keeper, tenant_a, monkeypatch):
    await settle(keeper)
    known = (await stored(usage, "disks"))["document"]
    with monkeypatch.context() as patched:
        # As if days of the meter had ended, today among them.
        patched.setattr(kept, "YOUNGEST_END", timedelta(days=-2))
        await usage.fetch(
            "INSERT INTO pool.ended_rollup (tenant_id, meter_id, until)"
            " SELECT $1, id, $2 FROM system.meter WHERE slug = 'disks'",
            tenant_a.id,
            datetime.now(UTC).date() + timedelta(days=2),
        )
        await usage.fetch("INSERT INTO system.balance_change (tenant_id, feature) VALUES ($1, 'disks')", tenant_a.id)
        await count(usage, tenant_a, 30)
        await settle(keeper)
        assert (await value(usage, tenant_a))["usage"] == "30"
        assert '"usage":"30"' in (await stored(usage, "api-calls"))["document"]
        off = await stored(usage, "disks")
        assert off["document"] == known
        assert off["next_turn"] > datetime.now(UTC)
        answer = await get(usage, tenant_a, "entitlements/disks")
        assert (answer.status_code, answer.json()["type"]) == (503, "usage-unknown")
    assert (await value(usage, tenant_a, "disks"))["usage"] == "0"


async def stored(usage, feature):
    [row] = await usage.fetch("SELECT * FROM pool.entitlement_balance WHERE feature = $1", feature)
    return row
