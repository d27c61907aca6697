from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tenantry.testing import eventually

from .support import API_CALLS, BANDWIDTH, event


async def test_events_are_counted_once_and_answered(usage, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    await usage.put_meter("bandwidth", BANDWIDTH)
    first = [event(tenant_a, n) for n in range(50)]
    # Twice in one request, again in another, and again with another time on the day before.
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    copies = [first[0], first[0], event(tenant_a, 1), event(tenant_a, 2, time=yesterday)]
    async with usage.metering():
        assert (await usage.send(*first, *copies)).json() == {"accepted": 54}
        assert (await usage.send(*first)).status_code == 202
        await eventually(usage.counted, within=60)
        span = {"from": (datetime.now(UTC) - timedelta(days=3)).isoformat(), "to": datetime.now(UTC).isoformat()}
        total = await usage.query(tenant_a, "api-calls", **span)
        assert [item["value"] for item in total["items"]] == ["50"]
        volume = await usage.query(tenant_a, "bandwidth", **span)
        assert [item["value"] for item in volume["items"]] == ["500"]


async def test_a_copy_on_a_neighbouring_day_never_counts_whenever_it_comes(usage, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    noon = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=5, hours=12)
    span = {"from": (noon - timedelta(days=9)).isoformat(), "to": (noon + timedelta(days=9)).isoformat()}

    def copy(days: int) -> dict:
        return event(tenant_a, 1, time=(noon + timedelta(days=days)).isoformat())

    # Each in a batch of its own, the last of them through workers that have just started.
    async with usage.metering():
        for days in (0, 1, -1, 0):
            await usage.send(copy(days))
            await eventually(usage.counted, within=60)
    async with usage.metering():
        await usage.send(copy(1), copy(-1))
        await eventually(usage.counted, within=60)
        assert [item["value"] for item in (await usage.query(tenant_a, "api-calls", **span))["items"]] == ["1"]
        # Outside the window of every copy that counted, it is another event.
        await usage.send(copy(2), copy(3), copy(4))
        await eventually(usage.counted, within=60)
    assert [item["value"] for item in (await usage.query(tenant_a, "api-calls", **span))["items"]] == ["3"]
