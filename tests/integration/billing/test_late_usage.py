"""Usage of a closed period that came, or was taken back, after its invoice: lines of the next one (rules 15, 25)."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from billing_service.domain.runs import RunState
from billing_service.invoicing.late_repository import changed_periods
from billing_service.subscriptions.repository import of_tenant
from tenantry import Tenant

from .support import APRIL, MARCH, MAY, PLAN, Billing, as_record, partition_of, rollup

HOUR = timedelta(hours=1)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
ADJUSTING = """
SELECT charge, quantity::text, amount::text, line.period_from, formula
  FROM invoice_line AS line JOIN invoice_final AS invoice ON invoice.id = line.invoice_id
 WHERE line.period_from IS NOT NULL ORDER BY sequence, n
"""


async def test_a_correction_makes_a_negative_line_of_the_next_invoice(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.feed(
        rollup(tenant_a.id, "requests", MARCH, 1, 1000),
        rollup(tenant_a.id, "bytes", MARCH, 1, 3, "1500"),
    )
    await billing.run(APRIL)
    assert (await billing.totals())[tenant_a.id, MARCH] == Decimal("45.00")  # 20 + 12.50 + 10.00 + 500 * 0.005
    await billing.feed(
        rollup(tenant_a.id, "requests", MARCH, 2, 400),
        rollup(tenant_a.id, "bytes", MARCH, 2, 2, "900"),
        rollup(tenant_a.id, "requests", APRIL, 1, 80),
    )
    await billing.run(MAY)
    assert await billing.rows(ADJUSTING) == [
        ("requests", "-600", "-7.50", MARCH, "400 * 0.0125 less 12.5 billed"),
        ("bytes", "-600", "-3.50", MARCH, "900 * 0.01 less 12.5 billed"),
    ]
    assert (await billing.totals())[tenant_a.id, APRIL] == Decimal("10.00")  # 20 + 1.00 - 7.50 - 3.50
    # Booked once: the next run finds nothing to adjust, whatever April's own usage does.
    await billing.feed(rollup(tenant_a.id, "requests", APRIL, 2, 160))
    await billing.run(JUNE)
    assert (await billing.totals())[tenant_a.id, MAY] == Decimal("21.00")
    assert (await billing.rows(ADJUSTING))[2:] == [("requests", "80", "1.00", APRIL, "160 * 0.0125 less 1 billed")]


async def test_what_was_taken_back_may_come_again(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 1, 1000))
    await billing.run(APRIL)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 2, 0))
    await billing.run(MAY)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 3, 8), rollup(tenant_a.id, "requests", MARCH, 4, 1016))
    await billing.run(JUNE)
    assert [line[1:3] for line in await billing.rows(ADJUSTING)] == [("-1000", "-12.50"), ("1016", "12.70")]
    assert await billing.scalar("SELECT sum(total)::text FROM invoice_final") == "72.70"


async def test_a_tombstone_takes_back_what_it_withdraws(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    first, second = (rollup(tenant_a.id, "requests", MARCH + n * HOUR, 7, 400) for n in range(2))
    await billing.feed(first, second)
    await billing.run(APRIL)
    await consume(billing, tombstone(first), first | {"version": 1, "count": "40"}, tombstone(second))
    assert await billing.rows("SELECT version, count::text FROM usage_rollup ORDER BY window_start") == [
        (1, "40"),
        (0, "0"),
    ]
    await billing.run(MAY)
    assert [line[1:3] for line in await billing.rows(ADJUSTING)] == [("-760", "-9.50")]
    await billing.feed(second | {"version": 2, "count": "80"})
    await billing.run(JUNE)
    assert [line[1:3] for line in await billing.rows(ADJUSTING)][1:] == [("80", "1.00")]


async def test_a_withdrawal_behind_the_cut_is_left_to_the_next_invoice(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    hour = rollup(tenant_a.id, "requests", MARCH, 7, 800)
    await billing.feed(hour)

    async def withdraw(_: UUID) -> None:
        await consume(billing, tombstone(hour))

    billing.after_cut = withdraw
    await billing.run(APRIL)
    assert (await billing.totals())[tenant_a.id, MARCH] == Decimal("30.00")
    billing.after_cut = None
    await billing.run(MAY)
    assert (await billing.totals())[tenant_a.id, APRIL] == Decimal("10.00")


async def test_late_usage_between_cut_and_final_is_not_lost(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)

    async def late(_: UUID) -> None:
        await billing.feed(rollup(tenant_a.id, "requests", MARCH, 1, 800))

    billing.after_cut = late
    await billing.run(APRIL)
    billing.after_cut = None
    await billing.run(MAY)
    assert [line[1:4] for line in await billing.rows(ADJUSTING)] == [("800", "10.00", MARCH)]


async def test_runs_at_the_same_time_book_late_usage_once(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 1, 1000))
    await billing.run(APRIL)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 2, 400))
    for as_of in (MAY, JUNE, MAY):
        await billing.request_run(as_of)
    await billing.finish_runs(chunk=1)
    assert [line[1:4] for line in await billing.rows(ADJUSTING)] == [("-600", "-7.50", MARCH)]
    assert await billing.scalar("SELECT sum(total)::text FROM invoice_final") == "65.00"  # 3 * 20 + 400 * 0.0125


async def test_only_what_changed_since_it_was_looked_at_is_rated_again(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 1, 1000), rollup(tenant_a.id, "requests", APRIL, 1, 80))
    await billing.run(MAY)
    async with billing.databases.system.begin() as connection:  # longer ago than clocks are allowed to be wrong
        await connection.exec_driver_sql("UPDATE usage_rollup SET changed_at = changed_at - interval '3 hours'")
    assert await changed(billing, tenant_a) == []
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 2, 400))
    assert await changed(billing, tenant_a) == [MARCH]
    await billing.run(JUNE)
    assert [line[1:4] for line in await billing.rows(ADJUSTING)] == [("-600", "-7.50", MARCH)]
    # All of its periods have been looked at by the cut of the last run.
    assert await billing.scalar("SELECT count(DISTINCT usage_seen_at) FROM billed_period") == 1


async def changed(billing: Billing, tenant: Tenant) -> list[datetime]:
    async with billing.databases.system_session() as session:
        subscribed = await of_tenant(session, tenant.id)
        found = await changed_periods(session, subscribed, datetime(2100, 1, 1, tzinfo=UTC))
        return [each.period_from for each in found]


async def test_a_dry_run_shows_what_would_be_adjusted_and_books_nothing(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 1, 1000))
    await billing.run(APRIL)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 2, 400))
    for _ in range(2):
        await billing.run(MAY, dry_run=True)
    rated = await billing.rows("SELECT total::text FROM system.invoice_run_item WHERE state = 'rated'")
    assert rated == [("12.50",), ("12.50",)]
    await billing.run(MAY)
    assert (await billing.totals())[tenant_a.id, APRIL] == Decimal("12.50")


async def test_a_dry_run_shows_late_usage_once_however_many_chunks_it_has(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 1, 1000))
    await billing.run(APRIL)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 2, 400))
    await billing.request_run(JUNE, dry_run=True)
    await billing.finish_runs(chunk=1)
    shown = "SELECT total::text FROM system.invoice_run_item WHERE state = 'rated' ORDER BY n"
    assert await billing.rows(shown) == [("12.50",), ("20.00",)]
    await billing.request_run(JUNE)
    await billing.finish_runs(chunk=1)
    assert [str(total) for (_, start), total in sorted((await billing.totals()).items()) if start > MARCH] == [
        "12.50",
        "20.00",
    ]


async def test_late_usage_alone_makes_an_invoice_of_a_period_that_is_skipped(
    billing: Billing, tenant_a: Tenant
) -> None:
    await billing.put_plan(PLAN | {"skip_without_usage": True})
    await billing.subscribe(tenant_a)
    await billing.run(APRIL)
    assert await billing.totals() == {}
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 1, 80))
    await billing.run(MAY)
    assert await billing.totals() == {(tenant_a.id, APRIL): Decimal("21.00")}  # March's own fee and usage
    assert [line[0] for line in await billing.rows(ADJUSTING)] == ["base", "requests"]


async def test_late_usage_that_cannot_be_rated_holds_the_invoice_and_no_other(
    billing: Billing, tenant_a: Tenant, tenant_b: Tenant
) -> None:
    await billing.put_plan()
    for tenant in (tenant_a, tenant_b):
        await billing.subscribe(tenant)
        await billing.feed(rollup(tenant.id, "requests", MARCH, 1, 1000))
    await billing.run(APRIL)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 2, 5, aggregation="max", max="7"))
    run = await billing.run(MAY)
    assert run.state is RunState.DONE
    assert {tenant for tenant, start in await billing.totals() if start == APRIL} == {tenant_b.id}
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 3, 1008))
    await billing.run(MAY)
    assert (await billing.totals())[tenant_a.id, APRIL] == Decimal("20.10")


def tombstone(of: dict[str, Any]) -> dict[str, Any]:
    return of | {"version": None}


async def consume(billing: Billing, *values: dict[str, Any]) -> None:
    """Consume records of one tenant in one transaction; one without a version is a tombstone."""
    records = []
    for offset, value in enumerate(values):
        record = as_record(value, partition_of(UUID(value["tenant_id"])), offset)
        if value["version"] is None:
            meter, start = f"{value['meter']}@{value['meter_version']}", value["window_start"]
            record.key = f"{value['tenant_id']}|{meter}|hour|{start}|{value['group_hash']}".encode()
            record.value = None
        records.append(record)
    async with billing.databases.system.begin() as connection:
        await billing.consumer.handle(connection, records)
