"""Late usage of billed periods: found by the hours that changed, priced as the period was, booked as the difference."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.domain.adjustments import adjustments
from billing_service.domain.errors import BillingRuleError
from billing_service.domain.periods import Period, billed_usage
from billing_service.domain.plans import Plan
from billing_service.domain.rating import Line, rate
from billing_service.invoicing import late_repository
from billing_service.subscriptions.models import Subscription
from billing_service.usage.repository import usage_at_cut


@dataclass(slots=True)
class Late:
    """What the next invoice of a subscription has to take along."""

    found: list[Line] = field(default_factory=list)
    error: BillingRuleError | None = None

    def lines(self) -> list[Line]:
        """The oldest period first. Raises BillingRuleError where one cannot be rated any more."""
        if self.error is not None:
            raise self.error
        return self.found


async def late_lines(
    session: AsyncSession,
    cut_id: UUID,
    read_at: datetime,
    subscriptions: Mapping[UUID, Subscription],
    plans: Mapping[tuple[str, int], Plan],
    bill_froms: Mapping[UUID, datetime],
) -> dict[UUID, Late]:
    """By subscription, what adjusts its billed periods to their usage at the cut, which was read at `read_at`.

    The periods are locked until the caller commits, so that no other run books the same.
    """
    found = {each: Late() for each in subscriptions}
    changed: list[tuple[late_repository.BilledPeriod, Period]] = []
    for each in await late_repository.changed_periods(session, subscriptions.values(), read_at):
        try:
            changed.append((each, _period(subscriptions[each.subscription_id], plans, each)))
        except BillingRuleError as error:
            found[each.subscription_id].error = error
    if not changed:
        return found
    usage = await usage_at_cut(
        session,
        cut_id,
        [
            (n, each.tenant_id, *billed_usage(period, bill_froms.get(each.tenant_id)))
            for n, (each, period) in enumerate(changed)
        ],
        sorted({meter for plan in plans.values() for meter in plan.meters}),
    )
    booked = await late_repository.booked(session, [each for each, _ in changed])
    for n, (each, period) in enumerate(changed):
        subscription, late = subscriptions[each.subscription_id], found[each.subscription_id]
        plan = plans[subscription.plan_code, subscription.plan_version]
        try:
            rated = rate(plan, subscription.currency, period, subscription.quantities, usage.get(n, {}))
        except BillingRuleError as error:
            late.error = error
            continue
        late.found += adjustments(period, rated, booked.get((each.subscription_id, each.period_from), {}))
    return found


def _period(
    subscription: Subscription, plans: Mapping[tuple[str, int], Plan], billed: late_repository.BilledPeriod
) -> Period:
    """The billed period as the calendar has it, which knows what part of a whole one it is.

    Raises BillingRuleError where it has no such period.
    """
    interval = plans[subscription.plan_code, subscription.plan_version].interval
    period = subscription.schedule(interval).period_at(billed.period_from)
    if period is None or (period.start, period.end) != (billed.period_from, billed.period_to):
        raise BillingRuleError(
            f"the period billed from {billed.period_from} to {billed.period_to} is none of the subscription"
        )
    return period
