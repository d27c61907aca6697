"""A meter that is changed counts from then on: what was counted before stays, and can be told from raw events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenantry.testing import eventually
from usage_service.domain.instants import rfc3339

from .batches import Member
from .support import event

NOW = datetime.now(UTC).replace(microsecond=0)
START = (NOW - timedelta(days=1)).replace(hour=0, minute=0, second=0)
SPAN = {"from": START.isoformat(), "to": NOW.isoformat()}
KIND = "gauge"
AGGREGATIONS = ["count", "sum", "min", "max", "avg", "latest", "unique_count", "time_weighted"]


def definition(aggregation: str, **changes: Any) -> dict[str, Any]:
    value = {} if aggregation == "count" else {"value": "$.v"}
    return {"event_type": KIND, "aggregation": aggregation, "group_by": {"disk": "$.disk"}, **value, **changes}


def gauge(tenant, number: int, hours: float, **data: Any) -> dict[str, Any]:
    time = (START + timedelta(hours=hours)).isoformat()
    return event(tenant, number, type=KIND, time=time, data={"v": number, "disk": "a", "region": "eu", **data})


async def figures(usage, tenant, slug: str, window: str = "hour", **params: Any) -> list[tuple[str, str, dict]]:
    items = (await usage.query(tenant, slug, window=window, group_by=list(params), **SPAN))["items"]
    return [(item["window_start"], item["value"], item["group"]) for item in items]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize(
    "change",
    [
        {"group_by": {"region": "$.region"}},
        {"filter": {"$.disk": {"eq": "none"}}},
        {"value": "$.other"},
        {"unit": "byte-days"},
    ],
    ids=["dimensions", "filter", "value", "unit"],
)
async def test_a_change_leaves_closed_windows_as_they_were(usage, tenant_a, aggregation, change):
    if aggregation == "count" and "value" in change:
        pytest.skip("a count has no value")
    if aggregation == "time_weighted" and "unit" in change:
        pytest.skip("the unit of an answer is the current one: the same integral in other words")
    member = await Member.join(usage)
    await usage.put_meter("m", definition(aggregation))
    await member.count(*[gauge(tenant_a, number, number / 3, disk="ab"[number % 2]) for number in range(1, 9)])
    rollups = "SELECT * FROM pool.usage_rollup ORDER BY tenant_id, meter_id, window_start, group_hash"
    before, stored = await figures(usage, tenant_a, "m"), await usage.fetch(rollups)
    edge = {"from": SPAN["from"], "to": (START + timedelta(hours=1, minutes=50)).isoformat()}
    ragged = (await usage.query(tenant_a, "m", **edge))["items"]

    changed = await usage.put_meter("m", definition(aggregation, **change))
    assert changed["version"] == 2
    assert await figures(usage, tenant_a, "m") == before
    # An event that is received now and was of a closed window belongs to the new version: nothing old is rewritten.
    await member.count(gauge(tenant_a, 100, 20))
    assert [row for row in await usage.fetch(rollups) if row in stored] == stored
    late = await figures(usage, tenant_a, "m")
    assert [each for each in late if each[0] < rfc3339(START + timedelta(hours=20))] == [
        each for each in before if each[0] < rfc3339(START + timedelta(hours=20))
    ]
    assert [each["value"] for each in (await usage.query(tenant_a, "m", **edge))["items"]] == [
        each["value"] for each in ragged
    ]


async def test_versions_are_listed_with_what_each_of_them_counts(usage, tenant_a):
    await usage.put_meter("m", definition("sum"))
    await usage.put_meter("m", definition("sum", unit="byte"))
    await usage.put_meter("m", definition("sum", unit="byte"))
    answer = await usage.http.get("/v1/meters/m/versions", headers=usage.tenant_key(tenant_a))
    first, second = answer.json()["items"]
    assert [(each["version"], each["unit"]) for each in (first, second)] == [(1, ""), (2, "byte")]
    assert first["until"] == second["since"]
    assert second["until"] is None
    assert first["created_at"] < second["created_at"]
    assert (await usage.http.get("/v1/meters/none/versions", headers=usage.operator)).status_code == 404


async def created(usage, slug: str, version: int) -> datetime:
    [row] = await usage.fetch("SELECT created_at FROM system.meter WHERE slug = $1 AND version = $2", slug, version)
    return row[0]


async def age(usage, slug: str) -> None:
    """As if the meter had been changed some hours ago: events are not taken from the future."""
    await usage.fetch(
        "UPDATE system.meter SET created_at = created_at - interval '4 hours' WHERE slug = $1 AND version > 1", slug
    )


async def test_series_of_other_dimensions_end_where_the_meter_was_changed(usage, tenant_a):
    member = await Member.join(usage)
    await usage.put_meter("stored", definition("time_weighted"))
    await member.count(gauge(tenant_a, 1, 1, v=10), gauge(tenant_a, 2, 2, v=10, disk="b"))
    await usage.put_meter("stored", definition("time_weighted", group_by={"region": "$.region"}))
    await age(usage, "stored")
    changed = await created(usage, "stored", 2)
    # What the new version gets is a series beside them, which begins with its own first sample.
    opening = changed + timedelta(hours=3)
    await member.count(event(tenant_a, 3, type=KIND, time=opening.isoformat(), data={"v": 4, "region": "eu"}))

    async def integral(first: datetime, last: datetime, **params: Any) -> list[str]:
        span = {"from": first.isoformat(), "to": last.isoformat()}
        return [each["value"] for each in (await usage.query(tenant_a, "stored", **span, **params))["items"]]

    def value_hours(first: datetime, last: datetime, value: int) -> float:
        return value * ((last - first) / timedelta(hours=1))

    hour = timedelta(hours=1)
    old = value_hours(START + hour, changed, 10) + value_hours(START + 2 * hour, changed, 10)
    [total] = await integral(START, opening)
    assert float(total) == pytest.approx(old, rel=1e-12)
    assert await integral(changed, opening) == [None]
    [later] = await integral(changed, opening + 2 * hour)
    assert float(later) == pytest.approx(8)
    [by_hour] = [sum(map(float, await integral(START, opening + 2 * hour, window="hour")))]
    assert by_hour == pytest.approx(old + 8, rel=1e-12)
    by_disk = await integral(START, opening, group_by="disk")
    assert len(by_disk) == 2


async def test_series_of_the_same_dimensions_go_on_through_the_versions(usage, tenant_a):
    member = await Member.join(usage)
    await usage.put_meter("stored", definition("time_weighted"))
    await member.count(gauge(tenant_a, 1, 1, v=10))
    await usage.put_meter("stored", definition("time_weighted", filter={"$.disk": {"eq": "a"}}))
    span = {"from": NOW.isoformat(), "to": (NOW + timedelta(hours=2)).isoformat()}
    [item] = (await usage.query(tenant_a, "stored", **span))["items"]
    assert item["value"] == "20"


async def test_a_series_that_comes_back_begins_anew(usage, tenant_a):
    """Dimensions that a meter has had before are not gone on with: nobody knows what was between."""
    member = await Member.join(usage)
    await usage.put_meter("stored", definition("time_weighted"))
    await member.count(gauge(tenant_a, 1, 1, v=10))
    await usage.put_meter("stored", definition("time_weighted", group_by={"region": "$.region"}))
    await usage.put_meter("stored", definition("time_weighted"))
    await age(usage, "stored")
    opening = datetime.now(UTC) - timedelta(hours=1)
    await member.count(event(tenant_a, 2, type=KIND, time=opening.isoformat(), data={"v": 5, "disk": "a"}))
    span = {"from": (opening - timedelta(minutes=30)).isoformat(), "to": (opening + timedelta(hours=1)).isoformat()}
    [item] = (await usage.query(tenant_a, "stored", **span))["items"]
    assert item["value"] == "5"


async def test_a_change_while_events_flow_counts_every_event_once(usage, tenant_a):
    await usage.put_meter("m", definition("count"))
    async with usage.metering(members=3):
        for number in range(0, 300, 10):
            await usage.send(*[gauge(tenant_a, each, 1) for each in range(number, number + 10)])
            if number % 50 == 0:
                await usage.put_meter("m", definition("count", unit=f"u{number}"))
        await eventually(usage.counted, within=60)
    [item] = (await usage.query(tenant_a, "m", **SPAN))["items"]
    assert item["value"] == "300"
