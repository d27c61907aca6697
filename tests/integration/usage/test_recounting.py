"""Rollups made anew from the raw events of an hour: in blocks, so however many events it has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tenantry import uuid7
from usage_service.domain.corrections import CORRECTION
from usage_service.metering import gathering, recounting, rollup_rows

from .batches import Member
from .support import event

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
SPAN = {"from": HOUR.isoformat(), "to": (HOUR + timedelta(hours=1)).isoformat()}
GAUGE = {"event_type": "gauge", "value": "$.v", "group_by": {"zone": "$.zone"}}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(recounting, "_ROWS_AT_ONCE", 3)
    monkeypatch.setattr(recounting, "_STAGED_AT_ONCE", 2)


def gauge(tenant, minute: int, value: object, *, zone: str = "a") -> dict:
    time = (HOUR + timedelta(minutes=minute)).isoformat()
    return event(tenant, minute, id=f"{zone}-{minute}", type="gauge", time=time, data={"v": value, "zone": zone})


def cancel(tenant, minute: int, *, zone: str = "a") -> dict:
    named = {"source": "tests", "id": f"{zone}-{minute}"}
    return event(tenant, minute, id=str(uuid7()), type=CORRECTION, data={"cancels": named})


async def figures(usage, tenant) -> dict[str, Decimal]:
    answer = await usage.query(tenant, "gauge", group_by="zone", **SPAN)
    return {item["group"]["zone"]: Decimal(item["value"]) for item in answer["items"]}


async def test_samples_that_come_in_any_order(usage, tenant_a):
    await usage.put_meter("gauge", {**GAUGE, "aggregation": "time_weighted"})
    member = await Member.join(usage)
    recounted = gathering.RECOUNTED._value.get()
    for minutes in ((30, 40, 50), (10, 45), (0, 20, 35), (55,), (5, 15, 25)):
        await member.count(*[gauge(tenant_a, each, each) for each in minutes], gauge(tenant_a, minutes[0], 1, zone="b"))
    assert gathering.RECOUNTED._value.get() >= recounted + 3
    held = Decimal(sum(each * 5 for each in range(0, 60, 5))) / 60
    # Zone b has its first sample at the full hour, and all of them say the same.
    assert await figures(usage, tenant_a) == {"a": held, "b": 1}
    await member.count(cancel(tenant_a, 55))
    assert (await figures(usage, tenant_a))["a"] == round(held - Decimal(5 * 5) / 60, 18)


async def test_values_that_no_event_has_any_more(usage, tenant_a, monkeypatch):
    await usage.put_meter("gauge", {**GAUGE, "aggregation": "unique_count"})
    in_memory: list[int] = []
    stage = rollup_rows.stage_values

    async def watched(connection, states):
        in_memory.append(sum(len(state.values) for state in states.values()))
        await stage(connection, states)

    monkeypatch.setattr(recounting, "stage_values", watched)
    member = await Member.join(usage)
    await member.count(*[gauge(tenant_a, each, each % 25) for each in range(50)], gauge(tenant_a, 1, 1, zone="b"))
    assert await figures(usage, tenant_a) == {"a": 25, "b": 1}
    # Of 0 to 2 both events go, of 3 one does.
    await member.count(*[cancel(tenant_a, each) for each in (0, 1, 2, 3, 25, 26, 27)], gauge(tenant_a, 51, "new"))
    assert await figures(usage, tenant_a) == {"a": 23, "b": 1}
    assert 0 < max(in_memory) <= 2 * 3
    stored = await usage.fetch("SELECT group_hash, count(*) AS stored FROM pool.usage_unique_value GROUP BY 1")
    assert sorted(row["stored"] for row in stored) == [1, 23]
