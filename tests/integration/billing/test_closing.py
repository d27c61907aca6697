"""What comes late to a subscription that is over: an invoice of its own, where it is worth one (rule 25)."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing_service.domain.runs import RunState
from tenantry import Tenant

from .support import APRIL, MARCH, MAY, Billing, rollup

HOUR = timedelta(hours=1)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
INVOICES = "SELECT number, total::text, period_from = period_to FROM invoice_final ORDER BY sequence"


async def ended(billing: Billing, tenant: Tenant) -> None:
    """A subscription of March, with 1,000 requests, that is billed and over."""
    await billing.put_plan()
    await billing.subscribe(tenant, ends_at=APRIL)
    await billing.feed(rollup(tenant.id, "requests", MARCH, 1, 1000))
    await billing.run(APRIL)


async def test_late_usage_gets_an_invoice_of_its_own_once(billing: Billing, tenant_a: Tenant) -> None:
    await ended(billing, tenant_a)
    await billing.run(MAY)
    assert await billing.rows(INVOICES) == [("INV-000001", "32.50", False)]
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 2, 1800))
    for as_of in (MAY, JUNE):
        billing.clock.advance(HOUR)
        await billing.run(as_of)
    assert await billing.rows(INVOICES) == [("INV-000001", "32.50", False), ("INV-000002", "10.00", True)]
    lines = "SELECT charge, quantity::text, period_from FROM invoice_line WHERE period_from IS NOT NULL"
    assert await billing.rows(lines) == [("requests", "800", MARCH)]
    # And again, the other way.
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 3, 0))
    billing.clock.advance(HOUR)
    await billing.run(JUNE)
    assert (await billing.rows(INVOICES))[2:] == [("INV-000003", "-22.50", True)]


async def test_as_little_as_is_written_off_is_no_invoice(billing: Billing, tenant_a: Tenant) -> None:
    billing.write_off = Decimal("5.00")
    await ended(billing, tenant_a)
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 2, 1400))  # 5.00 more
    await billing.run(MAY)
    assert await billing.rows("SELECT skipped FROM billed_period WHERE skipped IS NOT NULL") == [("written_off",)]
    assert len(await billing.rows(INVOICES)) == 1
    # It is not forgotten: with what comes later it may be worth one.
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 3, 1408))
    billing.clock.advance(HOUR)
    await billing.run(JUNE)
    assert (await billing.rows(INVOICES))[1:] == [("INV-000002", "5.10", True)]


async def test_a_subscription_that_is_not_over_waits_for_its_next_invoice(
    billing: Billing, tenant_a: Tenant, tenant_b: Tenant
) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.subscribe(tenant_b, ends_at=MAY)
    await billing.run(APRIL)
    for tenant in (tenant_a, tenant_b):
        await billing.feed(rollup(tenant.id, "requests", MARCH, 1, 80))
    run = await billing.run(APRIL)
    assert run.state is RunState.DONE
    assert len(await billing.totals()) == 2
    await billing.run(MAY)
    assert {start: total for (tenant, start), total in (await billing.totals()).items() if tenant == tenant_b.id} == {
        MARCH: Decimal(20),
        APRIL: Decimal("21.00"),
    }
