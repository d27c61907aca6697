"""Corrections that come before their events, and those of tenants whose events lie under several keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tenantry import Routing, TenantClock, uuid7
from tenantry.events import partition_key
from tenantry.testing import eventually
from usage_service.domain.corrections import CORRECTION

from .batches import Member
from .corrections import cancels, correct, figures, listed, total
from .support import API_CALLS, BANDWIDTH, event


@pytest.mark.parametrize("ahead", [0, 100])
async def test_a_correction_that_comes_first_waits(usage, tenant_a, ahead):
    """Also where the tenant's clock is ahead of when its events are received."""
    now = datetime.now(UTC) + timedelta(days=ahead)
    if ahead:
        clock = TenantClock(id=uuid7(), now=now)
        usage.state.directory.upsert(msgspec.structs.replace(tenant_a, clock=clock, version=tenant_a.version + 1))
    numbers = [event(tenant_a, number, time=now.isoformat()) for number in range(3)]
    span = {"from": (now - timedelta(days=1)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()}

    async def counted() -> list[str | None]:
        return [value for _, value in await figures(usage, tenant_a, "api-calls", window="none", **span)]

    await usage.put_meter("api-calls", API_CALLS)
    async with usage.metering():
        await correct(usage, cancels(tenant_a, 0, numbers[1]))
        await eventually(usage.counted, within=60)
        [row] = await listed(usage, tenant_a, state="waiting")
        assert row["applied_at"] is None
        assert await counted() == ["1"]
        await usage.send(numbers[0], numbers[2])
        await eventually(usage.counted, within=60)
        await usage.send(numbers[0])
        await eventually(usage.counted, within=60)
    assert await counted() == ["2"]
    assert await listed(usage, tenant_a, state="waiting") == []
    [row] = await listed(usage, tenant_a, source="tests", id="e-0")
    assert row["state"] == "applied"


async def test_an_event_of_a_later_day_under_the_same_id_is_another_one(usage, tenant_a):
    """A correction waits until the day after it was made, by the tenant's clock."""
    await usage.put_meter("api-calls", API_CALLS)
    made = datetime.now(UTC) - timedelta(days=10)
    clock = TenantClock(id=uuid7(), now=made)
    tenant = msgspec.structs.replace(tenant_a, clock=clock, version=tenant_a.version + 1)
    usage.state.directory.upsert(tenant)
    async with usage.metering():
        await correct(usage, cancels(tenant_a, 0))
        later = msgspec.structs.replace(tenant, clock=None, version=tenant.version + 1)
        usage.state.directory.upsert(later)
        await usage.send(event(tenant_a, 0))
        await eventually(usage.counted, within=60)
        assert await total(usage, tenant_a, "api-calls") == "1"
        await usage.send(event(tenant_a, 0, time=(made + timedelta(days=1)).isoformat()))
        await eventually(usage.counted, within=60)
    [row] = await listed(usage, tenant_a)
    assert (row["state"], row["day"]) == ("applied", str((made + timedelta(days=1)).date()))


class Killed(Exception):
    pass


async def test_what_was_met_is_waited_for_no_more_once_that_is_committed(usage, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    member = await Member.join(usage)
    waiting = member._worker._corrections._waiting
    data = {"cancels": {"source": "tests", "id": "e-0"}}
    await member.count(event(tenant_a, 0, id=str(uuid7()), type=CORRECTION, data=data))
    assert [len(each) for each in waiting.values()] == [1]
    with pytest.raises(Killed):
        async with member.batch(event(tenant_a, 0)):
            raise Killed
    await member.count(event(tenant_a, 0))
    await member.count(event(tenant_a, 1))
    assert list(waiting.values()) == [set()]
    assert await total(usage, tenant_a, "api-calls") == "1"


async def test_one_of_a_spread_tenant_is_one_record_with_what_counts_instead(usage, tenant_a):
    """Whatever key the replacement's own copies have: a conflict's does not count, and a repetition's counts once."""
    await usage.put_meter("bandwidth", BANDWIDTH)
    now = datetime.now(UTC)
    version = tenant_a.version

    def on_day(number: int) -> datetime:
        nonlocal version
        version += 1
        clock = TenantClock(id=uuid7(), now=now - timedelta(days=10 - number))
        usage.state.directory.upsert(
            msgspec.structs.replace(tenant_a, routing=Routing(buckets=8), clock=clock, version=version)
        )
        return clock.now

    def key(number: int) -> bytes:
        return partition_key(tenant_a.id, 8, "tests", f"e-{number}")

    first, second = [number for number in range(1, 99) if key(number) != key(0)][:2]
    replaced = [event(tenant_a, number, data={"bytes": 2 + number}) for number in (first, second)]
    for each in replaced:
        del each["time"]
    asked = [cancels(tenant_a, 0, each) for each in replaced]
    span = {"from": (now - timedelta(days=20)).isoformat(), "to": now.isoformat(), "window": "none"}
    async with usage.metering():
        time = on_day(0)
        await usage.send(event(tenant_a, 0, time=time.isoformat()))
        for day in (0, 1, 4):  # in the window of copies, and after it
            on_day(day)
            for each in asked:
                assert (await correct(usage, each)).status_code == 202
            await eventually(usage.counted, within=60)
        # Copies of what counts instead have their own key.
        copy = {**replaced[0], "time": (time + timedelta(days=1)).isoformat()}
        assert (await usage.send(copy)).status_code == 202
        await eventually(usage.counted, within=60)
        [(_, value)] = await figures(usage, tenant_a, "bandwidth", **span)
        assert value == str(2 + first)
        # What counts instead is corrected in turn, under its own key.
        await correct(usage, cancels(tenant_a, first))
        await eventually(usage.counted, within=60)
    assert [value for _, value in await figures(usage, tenant_a, "bandwidth", **span)] == [None]
    letters = await usage.fetch("SELECT kind, type FROM pool.dead_letter WHERE type = 'tenantry.correction'")
    assert {row["kind"] for row in letters} == {"conflict"}
    shown = {each["cancels"]["id"]: each["replacement"] for each in await listed(usage, tenant_a)}
    assert shown == {"e-0": {"source": "tests", "id": f"e-{first}"}, f"e-{first}": None}
