"""Which periods a run bills: those that have ended, with their grace, on the tenants' own clocks."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.bill_from.repository import bill_froms
from billing_service.catalog.repository import plan_versions
from billing_service.domain.periods import Period, closing_period, due_periods
from billing_service.invoicing.late_repository import changed_periods
from billing_service.invoicing.models import PERIOD_INVOICE, Item, Run
from billing_service.subscriptions import repository as subscriptions
from billing_service.subscriptions.models import Subscription
from tenantry import Clock, TenantDirectory

PAGE = 1_000
_FIRST = UUID(int=0)


async def plan_items(session: AsyncSession, run: Run, directory: TenantDirectory, clock: Clock) -> list[Item]:
    """The periods of `run` in the order of their subscriptions and time; of those that are over, one for late usage.

    To be decided before the cut is taken: a tenant whose grace passes between the two would be billed for a period
    of which the cut has not seen the end. Tenants that the directory does not know are left to a later run.
    """
    items: list[Item] = []
    chosen = None if run.tenants is None else set(run.tenants)
    after = _FIRST
    while page := await subscriptions.page(session, None, after, PAGE):
        after = page[-1].id
        wanted = page if chosen is None else [each for each in page if each.tenant_id in chosen]
        if not wanted:
            continue
        plans = await plan_versions(session, ((each.plan_code, each.plan_version) for each in wanted))
        billed = await subscriptions.billed_starts(session, wanted, PERIOD_INVOICE)
        seams = await bill_froms(session, (each.tenant_id for each in wanted))
        over: list[tuple[Subscription, Period]] = []
        for subscription in wanted:
            tenant = directory.get(subscription.tenant_id)
            if tenant is None:
                continue
            now = tenant.now(clock)
            schedule = subscription.schedule(plans[subscription.plan_code, subscription.plan_version].interval)
            grace, starts = timedelta(seconds=run.grace_seconds), billed.get(subscription.id, frozenset())
            bill_from = seams.get(subscription.tenant_id)
            due = due_periods(schedule, now=now, as_of=run.as_of, grace=grace, billed=starts, bill_from=bill_from)
            closing = closing_period(schedule, now=now, as_of=run.as_of, grace=grace, billed=starts)
            if closing is not None and not due:
                over.append((subscription, closing))
            items += [_item(subscription, period, now, n) for n, period in enumerate(due, start=len(items) + 1)]
        late = {each.subscription_id for each in await changed_periods(session, [each for each, _ in over])}
        for subscription, closing in over:
            if subscription.id in late:
                items.append(_item(subscription, closing, closing.start, len(items) + 1))
    return items


def _item(subscription: Subscription, period: Period, now: datetime, n: int) -> Item:
    return Item(n=n, tenant_id=subscription.tenant_id, subscription_id=subscription.id, period=period, billed_at=now)
