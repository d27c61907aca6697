"""A tenant's `bill_from`: usage before it reaches no invoice, and usage that nobody bills is named."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import httpx
import pytest
from billing_installation import Installation, settled

from billing_service.app import create_app
from billing_service.bill_from import repository
from billing_service.bill_from.service import get_bill_from, put_bill_from
from billing_service.domain.errors import InvalidScheduleError
from tenantry import Conflict, Tenant
from tenantry.testing import TenantFactory

from .support import APRIL, MARCH, MAY, Billing, rollup

HOUR = timedelta(hours=1)
FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)
MIDDLE = datetime(2026, 3, 16, 7, tzinfo=UTC)


async def state(billing: Billing, tenant: Tenant, bill_from: datetime | None) -> datetime | None:
    async with billing.databases.system_session() as session:
        return await put_bill_from(session, tenant.id, bill_from)


async def test_history_before_it_reaches_no_invoice_and_usage_from_it_on_does(
    billing: Billing, tenant_a: Tenant
) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a, start_at=FEBRUARY)
    assert await state(billing, tenant_a, MIDDLE) == MIDDLE
    await billing.feed(
        rollup(tenant_a.id, "requests", FEBRUARY, 1, 9000),
        rollup(tenant_a.id, "requests", MARCH, 1, 9000),
        rollup(tenant_a.id, "requests", MIDDLE - HOUR, 1, 9000),
        rollup(tenant_a.id, "requests", MIDDLE, 1, 80),
        rollup(tenant_a.id, "requests", APRIL - HOUR, 1, 8),
    )
    dry = await billing.run(APRIL, dry_run=True)
    rated = "SELECT period_from, total::text FROM system.invoice_run_item WHERE run_id = '{}'"
    assert await billing.rows(rated.format(dry.id)) == [(MARCH, "21.10")]
    await billing.run(APRIL)
    assert await billing.totals() == {(tenant_a.id, MARCH): Decimal("21.10")}  # not February at all


async def test_late_history_is_no_late_usage(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await state(billing, tenant_a, MIDDLE)
    await billing.run(APRIL)
    await billing.feed(
        rollup(tenant_a.id, "requests", MIDDLE - HOUR, 1, 9000),
        rollup(tenant_a.id, "requests", MIDDLE, 1, 80),
    )
    await billing.run(MAY)
    lines = "SELECT quantity::text, amount::text FROM invoice_line WHERE period_from = '2026-03-01+00'"
    assert await billing.rows(lines) == [("80", "1.00")]


async def test_it_is_the_beginning_of_the_first_subscription_where_nothing_is_stated(
    billing: Billing, tenant_a: Tenant
) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a, start_at=MAY)
    await billing.subscribe(tenant_a, start_at=MARCH + 5 * HOUR, time_zone="Europe/Berlin")
    async with billing.databases.system_session() as session:
        assert await get_bill_from(session, tenant_a.id) == (None, MARCH - HOUR)
    assert await state(billing, tenant_a, APRIL) == APRIL
    assert await state(billing, tenant_a, None) == MARCH - HOUR
    published = await billing.rows(
        "SELECT convert_from(payload, 'UTF8')::jsonb ->> 'bill_from' FROM system.outbox"
        " WHERE topic = 'billing.state.v1' ORDER BY version"
    )
    assert [datetime.fromisoformat(each) for (each,) in published] == [MAY, MARCH - HOUR, APRIL, MARCH - HOUR]


async def test_it_changes_nothing_that_has_been_billed(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a, start_at=FEBRUARY)
    await state(billing, tenant_a, MARCH)
    await billing.run(APRIL)
    for touching in (MIDDLE, APRIL, MAY):
        with pytest.raises(Conflict):
            await state(billing, tenant_a, touching)
    with pytest.raises(InvalidScheduleError):
        await state(billing, tenant_a, FEBRUARY + timedelta(minutes=30))
    assert await state(billing, tenant_a, MARCH) == MARCH  # as it is
    assert await state(billing, tenant_a, None) == FEBRUARY  # February had not been billed: now it is due
    await billing.run(APRIL)
    assert set(await billing.totals()) == {(tenant_a.id, FEBRUARY), (tenant_a.id, MARCH)}
    with pytest.raises(Conflict):
        await state(billing, tenant_a, MARCH)


async def test_it_holds_for_a_run_that_was_planned_before_it_was_stated(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)

    async def put(_: UUID) -> None:
        await state(billing, tenant_a, APRIL)

    billing.after_cut = put
    await billing.run(MAY)
    assert set(await billing.totals()) == {(tenant_a.id, APRIL)}
    items = await billing.rows("SELECT state, reason FROM system.invoice_run_item ORDER BY n")
    assert items == [("skipped", "before_bill_from"), ("invoiced", None)]


async def test_usage_that_nobody_bills_is_named(billing: Billing, tenant_factory: TenantFactory) -> None:
    billed, unset, behind, ended = sorted((tenant_factory() for _ in range(4)), key=lambda tenant: tenant.id)
    await billing.put_plan()
    await billing.subscribe(billed)
    await billing.subscribe(ended, ends_at=APRIL - HOUR, time_zone="Europe/Berlin")
    await state(billing, billed, MARCH)
    await state(billing, behind, MIDDLE)
    for tenant in (billed, unset, behind):
        await billing.feed(rollup(tenant.id, "requests", FEBRUARY, 1, 5), rollup(tenant.id, "bytes", MIDDLE, 1, 2, "9"))
    # The last local day is billed to its end, which is 22:00 in UTC; what was corrected to nothing is no usage.
    await billing.feed(
        rollup(ended.id, "requests", APRIL - 3 * HOUR, 1, 1),
        rollup(ended.id, "requests", APRIL + 21 * HOUR, 1, 3),
        rollup(ended.id, "requests", APRIL + 22 * HOUR, 1, 7),
        rollup(ended.id, "requests", MAY, 1, 0),
    )
    async with billing.databases.system_session() as session:
        found = await repository.unbilled(session, UUID(int=0), 10)
        page = await repository.unbilled(session, unset.id, 1)
    assert [(row.tenant_id, row.bill_from, row.first, row.last, int(row.events), row.meters) for row in found] == [
        (unset.id, None, FEBRUARY, MIDDLE, 7, ["bytes", "requests"]),
        (behind.id, MIDDLE, MIDDLE, MIDDLE, 2, ["bytes"]),
        (ended.id, None, APRIL + 22 * HOUR, APRIL + 22 * HOUR, 7, ["requests"]),
    ]
    assert [row.tenant_id for row in page] == [behind.id]


@asynccontextmanager
async def serving(installation: Installation) -> AsyncIterator[httpx.AsyncClient]:
    runtime = installation.runtime()
    app = create_app(runtime)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://billing.test") as client,
    ):
        await settled(runtime)
        yield client


async def test_it_is_stated_by_operators_over_http(
    installation: Installation, tenant_a: Tenant, tenant_b: Tenant
) -> None:
    await installation.publish_tenants(tenant_a, tenant_b)
    operator = {"Authorization": f"Bearer {await installation.api_key('platform')}"}
    customer = {"Authorization": f"Bearer {await installation.api_key('tenant:admin', tenant=tenant_a)}"}
    url = f"/v1/tenants/{tenant_a.id}/bill-from"
    async with serving(installation) as client:
        put = await client.put(url, json={"bill_from": "2026-03-01T00:00:00Z"}, headers=operator)
        assert (put.status_code, put.json()["effective"]) == (200, "2026-03-01T00:00:00Z")
        assert (await client.get(url, headers=operator)).json() == put.json()
        assert (await client.put(url, json={"bill_from": None}, headers=customer)).status_code == 403
        for body in ({}, {"bill_from": "2026-03-01"}, {"bill_from": "2026-03-01T00:00:01Z"}):
            assert (await client.put(url, json=body, headers=operator)).status_code == 422
        unknown = f"/v1/tenants/{UUID(int=5)}/bill-from"
        assert (await client.get(unknown, headers=operator)).status_code == 404
        assert (await client.get("/v1/unbilled-usage", headers=operator)).json() == {"items": [], "next_cursor": None}
        assert (await client.get("/v1/unbilled-usage", headers=customer)).status_code == 403
