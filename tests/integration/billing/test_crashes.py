"""The worker is killed again and again: what it leaves is what an undisturbed one would have left."""

import asyncio
import random
from collections import Counter
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from billing_installation import Installation, kill

from billing_service.domain.runs import RunState
from tenantry.testing import TenantFactory, eventually

from .support import APRIL, MARCH, Billing, at, rollup

TENANTS = 20
HOURS = 30
KILLS = 10
HOUR = timedelta(hours=1)


class Oracle:
    """What each tenant owes for March, by arithmetic of its own on the last state of each rollup."""

    def __init__(self) -> None:
        self.rollups: dict[tuple[Any, ...], dict[str, Any]] = {}

    def see(self, value: dict[str, Any]) -> None:
        key = (value["tenant_id"], value["meter"], value["window_start"], value["group_hash"])
        if key not in self.rollups or self.rollups[key]["version"] < value["version"]:
            self.rollups[key] = value

    def totals(self) -> dict[str, Decimal]:
        counts: Counter[str] = Counter()
        sums: dict[str, Decimal] = {}
        for value in self.rollups.values():
            tenant = value["tenant_id"]
            sums.setdefault(tenant, Decimal(0))
            if value["meter"] == "requests":
                counts[tenant] += int(value["count"])
            else:
                sums[tenant] += Decimal(value["sum"])
        cent = Decimal("0.01")
        owed = {}
        for tenant, total in sums.items():
            low, high = min(total, Decimal(1000)), max(total - 1000, Decimal(0))
            tiers = (low * Decimal("0.01") + high * Decimal("0.005")).quantize(cent, ROUND_HALF_UP)
            owed[tenant] = 20 + (counts[tenant] * Decimal("0.0125")).quantize(cent, ROUND_HALF_UP) + tiers
        return owed


@pytest.mark.chaos
async def test_killed_ten_times_while_consuming_and_while_running(
    installation: Installation, billing: Billing, tenant_factory: TenantFactory, tmp_path: Path
) -> None:
    chance = random.Random(7)  # noqa: S311 - an order, not a secret
    tenants = [at(tenant_factory(), APRIL + 2 * HOUR) for _ in range(TENANTS)]
    await billing.put_plan()
    for tenant in tenants:
        await billing.subscribe(tenant)
    await installation.publish_tenants(*tenants)
    oracle = Oracle()
    log = tmp_path / "worker.log"

    async def replay() -> None:
        """Versions rise per row, some records come twice, and a restarted publisher repeats old versions."""
        published: list[dict[str, Any]] = []
        for version in range(1, 6):
            batch = []
            for tenant in tenants:
                for hour in range(HOURS):
                    start = MARCH + hour * HOUR
                    amount = str(Decimal(version * 7 + hour) / 8)
                    batch.append(rollup(tenant.id, "requests", start, version, version * 3 + hour))
                    batch.append(rollup(tenant.id, "bytes", start, version, version, amount, group="p"))
            for value in batch:
                oracle.see(value)
            again = chance.sample(batch + published, 60)
            published = batch
            await installation.publish_rollups([*batch, *again])
            await asyncio.sleep(0)

    worker = installation.start_role("billing-worker", log)
    try:
        replaying = asyncio.create_task(replay())
        for _ in range(KILLS // 2):
            seen = await stored_versions(billing)
            await eventually(partial(has_moved, billing, seen), within=60)
            kill(worker)
            worker = installation.start_role("billing-worker", log)
        await replaying

        run_id = await billing.request_run(APRIL)
        killed_in = []
        for _ in range(KILLS - KILLS // 2):
            killed_in.append(await run_state(billing))
            kill(worker)
            worker = installation.start_role("billing-worker", log)
            before = await progress(billing)
            await eventually(partial(differs, billing, before), within=60)
        await eventually(lambda: is_done(billing), within=60)
    except BaseException:
        print(log.read_text()[-8000:])  # noqa: T201 - the worker's own words, where the test fails
        raise
    finally:
        kill(worker)

    invoices = await billing.rows("SELECT tenant_id::text, total, sequence FROM invoice_final ORDER BY sequence")
    assert {tenant: total for tenant, total, _ in invoices} == oracle.totals()
    assert [sequence for _, _, sequence in invoices] == list(range(1, TENANTS + 1))
    lines = await billing.scalar("SELECT count(*) FROM invoice_line")
    assert lines == 3 * TENANTS
    assert await billing.scalar("SELECT count(*) FROM system.outbox WHERE topic = 'billing.events.v1'") == TENANTS
    assert await billing.scalar("SELECT count(*) FROM invoice_draft") == 0
    assert await billing.rows(f"SELECT state FROM system.invoice_run WHERE id = '{run_id}'") == [("done",)]
    print("killed in", killed_in, "cuts", installation.cuts)  # noqa: T201 - which states the kills hit


async def stored_versions(billing: Billing) -> int:
    return int(await billing.scalar("SELECT COALESCE(sum(version), 0) FROM usage_rollup"))


async def has_moved(billing: Billing, before: int) -> bool:
    complete = 2 * TENANTS * HOURS * 5
    now = await stored_versions(billing)
    return now > before or now == complete


async def progress(billing: Billing) -> tuple[Any, ...]:
    state = await run_state(billing)
    items = await billing.rows("SELECT state, count(*) FROM system.invoice_run_item GROUP BY state ORDER BY state")
    return (state, *items)


async def differs(billing: Billing, before: tuple[Any, ...]) -> bool:
    now = await progress(billing)
    return now != before or now[0] == RunState.DONE


async def run_state(billing: Billing) -> str:
    return str(await billing.scalar("SELECT state FROM system.invoice_run"))


async def is_done(billing: Billing) -> bool:
    return await run_state(billing) == RunState.DONE
