"""Events that are cancelled before a backfill has come to them, after it, or while it counts them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tenantry import Tenant, uuid7
from usage_service.backfilling import chunks
from usage_service.domain.corrections import CORRECTION
from usage_service.metering import rollup_rows

from .backfills import METERS, SPAN, START, backfill, backfiller_of, definition, finish, gauge, rows
from .batches import Member
from .support import event


def cancelling(tenant: Tenant, number: int) -> dict[str, Any]:
    """The correction of an event as its record has it."""
    data = {"cancels": {"source": "tests", "id": f"e-{number}"}}
    return event(tenant, number, id=str(uuid7()), type=CORRECTION, data=data, time=datetime.now(UTC).isoformat())


async def ask(usage, aggregation: str = "count", **changes: Any) -> None:
    await usage.put_meter("late", {**definition(aggregation), "backfill_from": START.isoformat(), **changes})


async def unmatched(usage) -> int:
    [[count]] = await usage.fetch("SELECT COALESCE(sum(count), 0)::int FROM pool.unmatched_type")
    return count


@pytest.mark.parametrize("aggregation", METERS)
async def test_a_figure_is_right_before_the_backfill_comes_to_it(usage, tenant_a, backfiller, aggregation):
    """New events are in the rollup already, and the one that is cancelled is not."""
    member = await Member.join(usage)
    await usage.put_meter("always", definition(aggregation))
    await member.count(*[gauge(tenant_a, n, 10 + n, v=n, user=f"u-{n}") for n in range(5)])
    await ask(usage, aggregation)
    await member.count(*[gauge(tenant_a, 10 + n, 30 + n, v=10 + n, user=f"u-{n}") for n in range(3)])
    await member.count(cancelling(tenant_a, 1), cancelling(tenant_a, 11))
    always, late = [(await usage.query(tenant_a, slug, window="hour", **SPAN))["items"] for slug in ("always", "late")]
    assert [each["value"] for each in late] == [each["value"] for each in always] != []
    assert (await backfill(usage, "late"))["state"] == "waiting"
    await finish(backfiller)
    assert await rows(usage, "late") == await rows(usage, "always")


@pytest.mark.parametrize("steps", range(9))
async def test_wherever_the_backfill_is_what_is_cancelled_is_unmatched_no_more(
    usage, tenant_a, tenant_b, archive, steps
):
    member = await Member.join(usage)
    tenants = sorted((tenant_a, tenant_b), key=lambda tenant: tenant.id)
    minutes = range(0, 2_880, 180)
    events = {(tenant.id, n): gauge(tenant, n, minute) for tenant in tenants for n, minute in enumerate(minutes)}
    outside = [gauge(tenant, 99, -60) for tenant in tenants]
    await member.count(*events.values(), *outside)
    assert await unmatched(usage) == len(events) + 2
    await ask(usage)
    backfiller = backfiller_of(usage, archive, chunk_events=5)
    for _ in range(steps):
        assert await backfiller.turn()
    gone = [(tenant, n) for tenant in tenants for n in range(0, len(minutes), 2)]
    before = await unmatched(usage)
    await member.count(*[cancelling(*each) for each in gone])
    assert steps or before - await unmatched(usage) == len(gone)
    await finish(backfiller)
    assert await unmatched(usage) == 2
    await member.count(cancelling(tenant_a, 99))
    assert await unmatched(usage) == 1
    assert sum(row[3] for row in await rows(usage, "late")) == len(events) - len(gone)


@pytest.mark.parametrize("full", [False, True])
async def test_a_group_that_the_backfill_has_not_come_to(usage, tenant_a, archive, full):
    member = await Member.join(usage)
    member.bound_groups(2)
    await member.count(*[gauge(tenant_a, n, n, disk=f"d-{n % 4}") for n in range(8)])
    await ask(usage, "count", group_by={"disk": "$.disk"})
    if full:
        await member.count(*[gauge(tenant_a, 20 + n, 20 + n, disk=f"x-{n}") for n in range(3)])
    await member.count(cancelling(tenant_a, 0), cancelling(tenant_a, 3))
    assert full or {row[2] for row in await rows(usage, "late")} == {'{"disk":"d-0"}', '{"disk":"d-3"}'}
    await finish(backfiller_of(usage, archive, max_groups=2))
    found = await rows(usage, "late")
    assert sum(row[3] for row in found) == (9 if full else 6)
    assert len(found) <= 4


async def test_an_event_that_takes_the_place_of_a_cancelled_one_is_seen(usage, tenant_a, backfiller, monkeypatch):
    """As many events as before, at the same offsets, when a step is about to lock."""
    first, second = await Member.join(usage, 0), await Member.join(usage, 1)
    await first.count(*[gauge(tenant_a, n, 10 + n, v=1) for n in range(2)])
    await ask(usage, "sum", filter={})
    lock = rollup_rows.lock_rollups
    acts = [True]

    async def locking(*given: Any):
        if acts:
            acts.clear()
            await second.count(gauge(tenant_a, 100, 50, v=40))
            await first.count(cancelling(tenant_a, 0))
        return await lock(*given)

    monkeypatch.setattr(chunks, "lock_rollups", locking)
    await finish(backfiller)
    assert not acts
    [item] = (await usage.query(tenant_a, "late", **SPAN))["items"]
    assert item["value"] == "41"
