import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest

from billing_service.domain.runs import RunState
from tenantry import Tenant
from tenantry.testing import ServiceDatabase, TenantFactory, eventually

from .support import APRIL, MARCH, MAY, PLAN, Billing, at, rollup

HOUR = timedelta(hours=1)


async def test_a_run_bills_what_the_rollups_hold(billing: Billing, tenant_a: Tenant, tenant_b: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.subscribe(tenant_b)
    await billing.feed(
        rollup(tenant_a.id, "requests", MARCH, 1, 100),
        rollup(tenant_a.id, "requests", MARCH + HOUR, 1, 1),
        rollup(tenant_a.id, "bytes", MARCH, 1, 2, "1500.5"),
        rollup(tenant_a.id, "requests", APRIL, 1, 999),  # the next period
        rollup(tenant_a.id, "requests", MARCH - HOUR, 1, 999),  # before the first
        rollup(tenant_b.id, "requests", APRIL - HOUR, 1, 8, group="x"),
        rollup(tenant_b.id, "requests", APRIL - HOUR, 1, 8, group="y"),
    )
    run = await billing.run(APRIL)
    assert (run.state, run.error) == (RunState.DONE, None)
    # a: 20.00 + round(101 * 0.0125 = 1.2625) + round(10 + 500.5 * 0.005 = 12.5025); b: 20.00 + 16 * 0.0125
    assert await billing.totals() == {
        (tenant_a.id, MARCH): Decimal("33.76"),
        (tenant_b.id, MARCH): Decimal("20.20"),
    }
    lines = await billing.rows(
        "SELECT charge, quantity::text, exact_amount::text, amount::text, formula, usage_rollups, usage_count::text"
        f" FROM invoice_line WHERE tenant_id = '{tenant_a.id}' ORDER BY n"
    )
    assert lines == [
        ("base", None, "20", "20.00", "20", None, None),
        ("requests", "101", "1.2625", "1.26", "101 * 0.0125", 2, "101"),
        ("bytes", "1500.5", "12.5025", "12.50", "1000 * 0.01 + 500.5 * 0.005", 1, "2"),
    ]


async def test_a_meter_that_neither_counts_nor_sums_is_not_billed_and_stays_due(
    billing: Billing, tenant_a: Tenant, tenant_b: Tenant
) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.subscribe(tenant_b)
    await billing.feed(
        rollup(tenant_a.id, "requests", MARCH, 1, 100, aggregation="max", max="5"),
        rollup(tenant_b.id, "requests", MARCH, 1, 100, "700", aggregation="avg"),
    )
    run = await billing.run(APRIL)
    assert run.state is RunState.DONE
    assert await billing.totals() == {}
    reasons = await billing.rows("SELECT state, reason FROM system.invoice_run_item ORDER BY reason")
    assert [state for state, _ in reasons] == ["failed", "failed"]
    assert ["aggregation avg" in reasons[0][1], "aggregation max" in reasons[1][1]] == [True, True]
    # Once the meter is what it should be, the same periods are billed.
    for tenant in (tenant_a, tenant_b):
        await billing.feed(rollup(tenant.id, "requests", MARCH, 2, 8))
    await billing.run(APRIL)
    assert set((await billing.totals()).values()) == {Decimal("20.10")}


async def test_a_meter_that_becomes_a_sum_is_billed_by_each_versions_figure(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.feed(
        rollup(tenant_a.id, "requests", MARCH, 1, 8),
        rollup(tenant_a.id, "requests", MARCH + HOUR, 1, 3, "80", meter_version=2),
    )
    await billing.run(APRIL)
    quantity = "SELECT quantity::text FROM invoice_line WHERE charge = 'requests'"
    assert await billing.scalar(quantity) == "88"


async def test_only_ended_periods_whose_grace_has_passed_on_the_tenants_clock(
    billing: Billing, tenant_factory: TenantFactory
) -> None:
    early, inside_grace, due, three = (tenant_factory() for _ in range(4))
    await billing.put_plan()
    await billing.subscribe(at(early, APRIL - HOUR))
    await billing.subscribe(at(inside_grace, APRIL + HOUR - timedelta(microseconds=1)))
    await billing.subscribe(at(due, APRIL + HOUR))
    await billing.subscribe(at(three, datetime.fromisoformat("2026-06-02T00:00:00Z")))
    await billing.run(MAY)
    assert set(await billing.totals()) == {(due.id, MARCH), (three.id, MARCH), (three.id, APRIL)}
    await billing.run(MAY)
    assert len(await billing.totals()) == 3


async def test_numbers_have_no_gap_and_periods_one_invoice(billing: Billing, tenant_factory: TenantFactory) -> None:
    tenants = [tenant_factory() for _ in range(25)]
    await billing.put_plan()
    for tenant in tenants:
        await billing.subscribe(tenant)
    for as_of in (APRIL, MAY):
        # Several runs at once want the same periods, in chunks that do not line up.
        for _ in range(3):
            await billing.request_run(as_of)
        await billing.finish_runs(chunk=7)
    numbers = await billing.rows("SELECT number, sequence FROM invoice_final ORDER BY sequence")
    assert numbers == [(f"INV-{n:06}", n) for n in range(1, 51)]
    # The same books give the same numbers, whatever order the chunks were rated in.
    accounts = [account for (account,) in await billing.rows("SELECT account FROM invoice_final ORDER BY sequence")]
    assert accounts == [*sorted(accounts[:25]), *sorted(accounts[25:])]
    assert await billing.scalar("SELECT count(*) FROM invoice_draft") == 0
    assert await billing.scalar("SELECT count(*) FROM usage_rollup_at_cut") == 0
    states = dict(await billing.rows("SELECT state, count(*) FROM system.invoice_run_item GROUP BY 1"))
    assert states.pop("invoiced") == 50
    assert set(states) <= {"already_billed"}


async def test_two_workers_that_bill_the_same_periods(billing: Billing, tenant_factory: TenantFactory) -> None:
    tenants = [tenant_factory() for _ in range(20)]
    await billing.put_plan()
    for tenant in tenants:
        await billing.subscribe(tenant)
    for _ in range(2):
        await billing.request_run(APRIL)

    async def both_are_planned(_: UUID) -> None:
        await eventually(planned)

    async def planned() -> bool:
        return await billing.scalar("SELECT count(*) FROM system.invoice_run WHERE state = 'requested'") == 0

    billing.after_cut = both_are_planned
    await asyncio.gather(billing.finish_runs(chunk=3), billing.finish_runs(chunk=3))
    assert len(await billing.totals()) == 20
    assert await billing.scalar("SELECT max(sequence) FROM invoice_final") == 20
    states = dict(await billing.rows("SELECT state, count(*) FROM system.invoice_run_item GROUP BY 1"))
    assert states == {"invoiced": 20, "already_billed": 20}


async def test_usage_behind_the_cut_is_not_billed(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 1, 100), rollup(tenant_a.id, "bytes", MARCH, 1, 1, "10"))

    async def late(_: UUID) -> None:
        await billing.feed(
            rollup(tenant_a.id, "requests", MARCH, 2, 500),
            rollup(tenant_a.id, "requests", MARCH, 3, 900),
            rollup(tenant_a.id, "requests", MARCH + HOUR, 1, 77),
        )

    billing.after_cut = late
    await billing.run(APRIL)
    billed = dict(
        await billing.rows("SELECT charge, usage_count::text FROM invoice_line WHERE usage_count IS NOT NULL")
    )
    assert billed == {"requests": "100", "bytes": "1"}
    assert await billing.scalar("SELECT sum(count)::text FROM usage_rollup WHERE meter = 'requests'") == "977"


async def test_a_late_rollup_changes_no_final_invoice(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 1, 100))
    await billing.run(APRIL)
    before = await billing.rows("SELECT * FROM invoice_line ORDER BY n")
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 2, 5000))
    await billing.run(APRIL)
    assert await billing.rows("SELECT * FROM invoice_line ORDER BY n") == before
    assert len(await billing.totals()) == 1


async def test_an_older_version_never_replaces_a_newer_one(billing: Billing, tenant_a: Tenant) -> None:
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 5, 50))
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 4, 40), rollup(tenant_a.id, "requests", MARCH, 3, 30))
    assert await billing.rows("SELECT version, count::text FROM usage_rollup") == [(5, "50")]
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 7, 70), rollup(tenant_a.id, "requests", MARCH, 6, 60))
    assert await billing.rows("SELECT version, count::text FROM usage_rollup") == [(7, "70")]


async def test_skipped_periods_are_settled_once_and_take_no_number(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan(PLAN | {"skip_without_usage": True})
    await billing.subscribe(tenant_a)
    await billing.feed(rollup(tenant_a.id, "requests", APRIL, 1, 8))
    await billing.run(MAY)
    assert await billing.totals() == {(tenant_a.id, APRIL): Decimal("20.10")}
    assert await billing.rows("SELECT number FROM invoice_final") == [("INV-000001",)]
    skipped = await billing.rows("SELECT period_from, skipped FROM billed_period WHERE invoice_id IS NULL")
    assert skipped == [(MARCH, "no_usage")]


async def test_a_dry_run_leaves_nothing_but_its_figures(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    run = await billing.run(APRIL, dry_run=True)
    assert run.state is RunState.DONE
    assert await billing.rows("SELECT state, total::text FROM system.invoice_run_item") == [("rated", "20.00")]
    assert await billing.totals() == {}
    await billing.run(APRIL)
    assert len(await billing.totals()) == 1


async def test_a_run_for_chosen_tenants(billing: Billing, tenant_a: Tenant, tenant_b: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.subscribe(tenant_b)
    await billing.run(APRIL, tenants=(tenant_b.id,))
    assert set(await billing.totals()) == {(tenant_b.id, MARCH)}


async def test_a_subscription_keeps_its_plan_version(billing: Billing, tenant_a: Tenant, tenant_b: Tenant) -> None:
    flat = {"code": "base", "price": {"model": "flat", "amount": "5"}}
    await billing.put_plan({"currencies": ["USD"], "charges": [flat]})
    await billing.subscribe(tenant_a)
    await billing.put_plan({"currencies": ["USD"], "charges": [flat | {"price": {"model": "flat", "amount": "6"}}]})
    await billing.subscribe(tenant_b)
    await billing.run(APRIL)
    assert await billing.totals() == {(tenant_a.id, MARCH): Decimal(5), (tenant_b.id, MARCH): Decimal(6)}
    assert await billing.rows("SELECT DISTINCT plan_version FROM invoice_final ORDER BY 1") == [(1,), (2,)]


@pytest.mark.parametrize("role", ["service", "system"])
@pytest.mark.parametrize("table", ["invoice_final", "invoice_line"])
async def test_final_rows_cannot_be_changed(
    billing: Billing, service_database: object, tenant_a: Tenant, role: str, table: str
) -> None:
    database: ServiceDatabase = service_database("billing")  # type: ignore[operator]
    async with database.connect(role) as connection:
        for statement in (f"UPDATE pool.{table} SET tenant_id = tenant_id", f"DELETE FROM pool.{table}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_finalising_announces_each_invoice_once(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.run(APRIL)
    await billing.run(APRIL)
    rows = await billing.rows("SELECT topic, type, key, version FROM system.outbox ORDER BY topic")
    assert rows == [
        ("billing.events.v1", "invoice.finalized.v1", str(tenant_a.id), 1),
        ("billing.state.v1", "billing.state.v1", str(tenant_a.id), 1),
    ]
