"""What is changed while a chunk of a run is being drafted: it comes before the drafts, or finds them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.bill_from.service import put_bill_from
from billing_service.domain.runs import RunState
from billing_service.invoicing.drafting import draft_chunk
from billing_service.invoicing.models import Run
from billing_service.invoicing.run_repository import find
from billing_service.subscriptions.service import cancel
from tenantry import Conflict, Tenant
from tenantry.testing import ServiceDatabase, eventually

from .support import APRIL, MARCH, MAY, Billing, rollup

HOUR = timedelta(hours=1)
MIDDLE = datetime(2026, 3, 20, tzinfo=UTC)
ITEMS = "SELECT state, reason FROM system.invoice_run_item ORDER BY run_id, n"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

Change = Callable[[AsyncSession], Awaitable[Any]]


async def rating(billing: Billing, as_of: datetime = APRIL) -> Run:
    """A run whose next step is to draft."""
    run_id = await billing.request_run(as_of)
    while True:
        async with billing.databases.system_session() as session:
            run = await find(session, run_id)
        assert run is not None
        if run.state is RunState.RATING:
            return run
        assert await billing.runner()._step(run)


async def draft(session: AsyncSession, run: Run) -> None:
    assert run.cut_id is not None
    assert await draft_chunk(session, run, run.cut_id, 10, write_off=Decimal(0)) == 1


async def change(billing: Billing, what: Change) -> None:
    async with billing.databases.system_session() as session:
        await what(session)


async def drafts_first(billing: Billing, run: Run, what: Change) -> asyncio.Task[None]:
    """The change, which has waited for the drafts."""
    async with billing.databases.system_session() as session:
        await draft(session, run)
        changing = asyncio.create_task(change(billing, what))
        await eventually(lambda: billing.scalar(WAITING))
    await asyncio.wait([changing])
    return changing


async def changed_first(billing: Billing, run: Run, what: Change) -> None:
    async def drafting() -> None:
        async with billing.databases.system_session() as session:
            await draft(session, run)

    async with billing.databases.system_session() as session:
        await what(session)
        waiting = asyncio.create_task(drafting())
        await eventually(lambda: billing.scalar(WAITING))
    await waiting


async def test_a_cancellation_finds_the_period_that_is_being_drafted(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    subscription = await billing.subscribe(tenant_a)
    run = await rating(billing)
    cancelled = await drafts_first(billing, run, lambda session: cancel(session, subscription.id, MIDDLE))
    assert isinstance(cancelled.exception(), Conflict)
    await billing.finish_runs()
    assert await billing.totals() == {(tenant_a.id, MARCH): Decimal(20)}


async def test_a_period_that_was_cut_short_meanwhile_is_left_to_the_next_run(
    billing: Billing, tenant_a: Tenant
) -> None:
    await billing.put_plan()
    subscription = await billing.subscribe(tenant_a)
    run = await rating(billing)
    await changed_first(billing, run, lambda session: cancel(session, subscription.id, MIDDLE))
    await billing.finish_runs()
    assert await billing.rows(ITEMS) == [("skipped", "subscription_ended")]
    await billing.run(APRIL)
    # 19 of 31 days of 20.00: at midnight the day before is over.
    assert await billing.rows("SELECT period_to, total::text FROM invoice_final") == [(MIDDLE, "12.26")]


async def test_a_bill_from_finds_the_period_that_is_being_drafted(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    run = await rating(billing)
    stated = await drafts_first(billing, run, lambda session: put_bill_from(session, tenant_a.id, MIDDLE))
    assert isinstance(stated.exception(), Conflict)


async def test_drafts_know_the_bill_from_that_came_first(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.feed(
        rollup(tenant_a.id, "requests", MIDDLE - HOUR, 1, 8000), rollup(tenant_a.id, "requests", MIDDLE, 1, 80)
    )
    run = await rating(billing)
    await changed_first(billing, run, lambda session: put_bill_from(session, tenant_a.id, MIDDLE))
    await billing.finish_runs()
    assert await billing.totals() == {(tenant_a.id, MARCH): Decimal("21.00")}


async def test_a_billed_period_that_is_none_holds_its_subscription_and_no_other(
    billing: Billing, tenant_a: Tenant, tenant_b: Tenant, service_database: Callable[[str], ServiceDatabase]
) -> None:
    await billing.put_plan()
    for tenant in (tenant_a, tenant_b):
        await billing.subscribe(tenant)
        await billing.feed(rollup(tenant.id, "requests", MARCH, 1, 1000))
    await billing.run(APRIL)
    async with service_database("billing").connect() as connection:  # as the owner: no role of the service may
        await connection.execute(
            "UPDATE pool.billed_period SET period_to = $1 WHERE tenant_id = $2", MIDDLE, tenant_a.id
        )
    await billing.feed(rollup(tenant_a.id, "requests", MARCH, 2, 400), rollup(tenant_b.id, "requests", MARCH, 2, 80))
    run = await billing.run(MAY)
    assert run.state is RunState.DONE
    assert {tenant for tenant, start in await billing.totals() if start == APRIL} == {tenant_b.id}
    failed = "SELECT reason FROM system.invoice_run_item WHERE state = 'failed'"
    assert [reason.endswith("is none of the subscription") for (reason,) in await billing.rows(failed)] == [True]
    assert await billing.scalar("SELECT count(*) FROM system.usage_cut WHERE NOT released") == 0
