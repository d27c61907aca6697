"""What raw events bear out of a figure: as it was at a cut, as it is now, and what cannot be told any more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from archives import DAY

from tenantry import Tier
from tenantry.testing import eventually

from .support import BANDWIDTH, event, open_usage

TIME = "2026-11-20T10:00:00Z"
SPAN = {"from": "2026-11-20T00:00:00Z", "to": "2026-11-21T00:00:00Z"}


async def evidence(usage, tenant, meter, cut, span=SPAN):
    body = {"tenant_id": str(tenant.id), "meter": meter, "cut": cut, **span}
    response = await usage.http.post("/v1/evidence", json=body, headers=usage.service)
    assert response.status_code == 200, response.text
    return response.json()


async def cut_now(usage):
    return (await usage.http.post("/v1/cuts", json={}, headers=usage.service)).json()["offsets"]


async def correct(usage, tenant, number, replacement=None):
    sent = event(tenant, number, time=TIME)
    body = {"cancels": {"source": sent["source"], "id": sent["id"], "subject": str(tenant.id)}, "reason": "a test"}
    if replacement is not None:
        body["replacement"] = replacement
    response = await usage.http.post("/v1/events/correct", json=body, headers=usage.service)
    assert response.status_code == 202, response.text
    return response.json()["ids"][0]


async def test_a_figure_is_told_as_it_was_at_a_cut_and_as_it_is_now(usage, tenant_a, tenant_b):
    await usage.put_meter("bandwidth", BANDWIDTH)
    await usage.put_meter("calls", {"event_type": "http.request", "aggregation": "count"})
    async with usage.metering():
        await usage.send(*(event(tenant_a, n, time=TIME) for n in range(4)))
        await usage.send(event(tenant_b, 9, time=TIME), event(tenant_a, 8, time="2026-11-21T00:00:00Z"))
        await eventually(usage.counted, within=60)
        cut = await cut_now(usage)
        at_cut = {"events": "4", "sum": "40"}
        assert await evidence(usage, tenant_a, "bandwidth", cut) == {
            "at_cut": at_cut,
            "now": at_cut,
            "corrections": [],
            "expired_days": [],
        }
        cancelled = await correct(usage, tenant_a, 1)
        instead = event(tenant_a, 20, time=TIME, data={"bytes": 25})
        replaced = await correct(usage, tenant_a, 2, instead)
        await usage.send(event(tenant_a, 5, time=TIME))
        await eventually(usage.counted, within=60)
    found = await evidence(usage, tenant_a, "bandwidth", cut)
    assert (found["at_cut"], found["now"]) == (
        at_cut,
        {"events": "4", "sum": "55"},
    )  # 10 + 25 + 10, and 10 that was late
    assert {each["id"]: each["replacement"] for each in found["corrections"]} == {
        cancelled: None,
        replaced: {"source": instead["source"], "id": instead["id"]},
    }
    assert {each["reason"] for each in found["corrections"]} == {"a test"}
    # A cut behind the corrections has them: nothing has changed since.
    later = await evidence(usage, tenant_a, "bandwidth", await cut_now(usage))
    assert (later["at_cut"], later["now"], later["corrections"]) == (found["now"], found["now"], [])
    assert (await evidence(usage, tenant_a, "calls", cut))["now"] == {"events": "4", "sum": None}
    assert (await evidence(usage, tenant_a, "calls", {}))["at_cut"] == {"events": "0", "sum": None}


async def test_only_services_and_operators_ask_for_it(usage, tenant_a):
    body = {"tenant_id": str(tenant_a.id), "meter": "calls", "cut": {}, **SPAN}
    for headers, status in ((usage.tenant_key(tenant_a), 403), (usage.service, 404), (usage.operator, 404)):
        answer = await usage.http.post("/v1/evidence", json=body, headers=headers)
        assert answer.status_code == status, answer.text
    await usage.put_meter("calls", {"event_type": "http.request", "aggregation": "count"})
    for change in ({"from": SPAN["to"], "to": SPAN["from"]}, {"cut": {"x": 1}}, {"from": "2026-11-20"}):
        answer = await usage.http.post("/v1/evidence", json=body | change, headers=usage.service)
        assert answer.status_code == 422, answer.text
    unknown = body | {"tenant_id": str(UUID(int=7))}
    assert (await usage.http.post("/v1/evidence", json=unknown, headers=usage.service)).status_code == 404


@pytest.fixture
async def served(world, kafka_bootstrap, kafka_prefix, tenant_a, tenant_b):
    """The HTTP application beside an archive."""
    service = await open_usage(world.database, kafka_bootstrap, f"{kafka_prefix}evidence.")
    service.state.directory.upsert_tier(Tier(name="standard", version=1))
    for tenant in (tenant_a, tenant_b):
        service.state.directory.upsert(tenant)
    async with service.running(archive_url=world.directory.as_uri()):
        yield service


async def test_it_is_found_in_the_archive_until_that_expires(served, world, tenant_a, tenant_b):
    await served.put_meter("numbers", {"event_type": "http.request", "aggregation": "sum", "value": "$.n"})
    span = {"from": f"{DAY}T00:00:00Z", "to": f"{DAY + timedelta(days=2)}T00:00:00Z"}
    everything = {str(partition): 1_000 for partition in range(12)}
    since = (
        "INSERT INTO system.meter_catalogue (version) SELECT 1 WHERE NOT EXISTS (SELECT FROM system.meter_catalogue)"
    )
    await served.fetch(since)
    for n in range(2):
        await world.put_events(tenant_a.id, range(10), day=DAY + timedelta(days=n))
        await world.put_events(tenant_b.id, range(3), day=DAY + timedelta(days=n))
    before = await evidence(served, tenant_a, "numbers", everything, span)
    assert (before["at_cut"], before["expired_days"]) == ({"events": "20", "sum": "90"}, [])
    world.clock.moment = datetime(2026, 4, 11, 12, tzinfo=UTC)
    await world.keeper().sweep()
    assert [await world.stored(DAY + timedelta(days=n)) for n in range(2)] == [False, True]
    assert await evidence(served, tenant_a, "numbers", everything, span) == before
    half = {str(partition): 5 for partition in range(12)}  # offsets are the events' numbers here
    assert (await evidence(served, tenant_a, "numbers", half, span))["at_cut"] == {"events": "10", "sum": "20"}
    world.clock.moment = datetime(2027, 6, 1, tzinfo=UTC)
    await world.keeper().sweep()
    gone = await evidence(served, tenant_a, "numbers", everything, span)
    assert gone["expired_days"] == [str(DAY), str(DAY + timedelta(days=1))]
    # A day that never had events has lost none.
    empty = {"from": f"{DAY - timedelta(days=9)}T00:00:00Z", "to": f"{DAY - timedelta(days=8)}T00:00:00Z"}
    assert (await evidence(served, tenant_a, "numbers", everything, empty))["expired_days"] == []
