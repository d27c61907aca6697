"""One chunk of a run: usage as it was at the cut, rated in memory, written as drafts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.bill_from.repository import hold_bill_froms
from billing_service.catalog.repository import plan_versions
from billing_service.domain.adjustments import closing, with_adjustments
from billing_service.domain.errors import BillingRuleError
from billing_service.domain.money import EXACT
from billing_service.domain.periods import billed_usage
from billing_service.domain.plans import Plan
from billing_service.domain.rating import Line, Rated, rate
from billing_service.domain.runs import ItemState
from billing_service.domain.usage import MeterUsage
from billing_service.invoicing import run_repository
from billing_service.invoicing.late import Late, late_lines
from billing_service.invoicing.late_repository import mark_seen
from billing_service.invoicing.models import PERIOD_INVOICE, Draft, Item, Outcome, Run, StoredLine
from billing_service.invoicing.repository import DRAFT_COLUMNS, claim_periods, draft_record
from billing_service.subscriptions.models import Subscription
from billing_service.subscriptions.repository import hold_many
from billing_service.usage.repository import cut_read_at, usage_at_cut
from tenantry import uuid7
from tenantry.database import copy_rows

# Exact amounts are kept to 40 places: all of them where nothing was divided, plenty where a period was prorated.
_STORED_EXACT = Decimal(1).scaleb(-40)
# The tenant's `bill_from` was moved behind a period after the run was planned.
_BEFORE_BILL_FROM = "before_bill_from"
# The subscription was ended inside a period after the run was planned; the shorter one is the next run's.
_SUBSCRIPTION_ENDED = "subscription_ended"


@dataclass(frozen=True, slots=True)
class _RatedItem:
    item: Item
    subscription: Subscription
    rated: Rated
    invoice_id: UUID | None
    adjusts: bool

    @property
    def key(self) -> tuple[UUID, datetime]:
        return self.subscription.id, self.item.period.start


async def draft_chunk(session: AsyncSession, run: Run, cut_id: UUID, limit: int, *, write_off: Decimal) -> int:
    """Rate the next `limit` pending periods of `run` and write their drafts; returns how many there were.

    A subscription's first invoice adjusts what its billed periods lack; one that is over gets an invoice of that alone
    where it is more than `write_off`. A period that somebody billed meanwhile is left out, one that cannot be rated
    says why and stays due. A dry run writes no drafts and takes no periods. The caller commits; until then a crash
    leaves the chunk pending.
    """
    items = await run_repository.claim_items(session, run.id, limit)
    if not items:
        return 0
    subscriptions = await hold_many(session, [(item.tenant_id, item.subscription_id) for item in items])
    plans = await plan_versions(session, ((each.plan_code, each.plan_version) for each in subscriptions.values()))
    seams = await hold_bill_froms(session, (item.tenant_id for item in items))
    read_at = await cut_read_at(session, cut_id)
    usage = await usage_at_cut(
        session,
        cut_id,
        [(item.n, item.tenant_id, *billed_usage(item.period, seams.get(item.tenant_id))) for item in items],
        sorted({meter for plan in plans.values() for meter in plan.meters}),
    )
    late = await late_lines(session, cut_id, read_at, subscriptions, plans, seams)
    if run.dry_run:  # which marks nothing as seen: late usage goes with the first period that an earlier chunk rated
        for shown in await run_repository.rated_before(session, run.id, subscriptions):
            del late[shown]
    outcomes: list[Outcome] = []
    rated: list[_RatedItem] = []
    for item in items:
        seam = seams.get(item.tenant_id)
        if seam is not None and item.period.end <= seam and not item.period.is_empty:
            outcomes.append(Outcome(n=item.n, state=ItemState.SKIPPED, reason=_BEFORE_BILL_FROM))
            continue
        subscription = subscriptions[item.subscription_id]
        plan = plans[subscription.plan_code, subscription.plan_version]
        if _is_cut_short(item, subscription, plan):
            outcomes.append(Outcome(n=item.n, state=ItemState.SKIPPED, reason=_SUBSCRIPTION_ENDED))
            continue
        result = _rate(item, subscription, plan, usage.get(item.n, {}), late.get(subscription.id), write_off)
        if isinstance(result, Outcome):
            outcomes.append(result)
        else:
            late.pop(subscription.id, None)
            rated.append(result)
    if run.dry_run:
        outcomes.extend(_outcome(each, ItemState.RATED) for each in rated)
    else:
        outcomes.extend(await _take(session, run, cut_id, read_at, rated))
    await run_repository.settle_items(session, run.id, outcomes)
    return len(items)


async def _take(
    session: AsyncSession, run: Run, cut_id: UUID, read_at: datetime, rated: list[_RatedItem]
) -> list[Outcome]:
    taken = await claim_periods(
        session,
        run.id,
        PERIOD_INVOICE,
        [
            (each.subscription, each.item.period.start, each.item.period.end, each.invoice_id, each.rated.skip)
            for each in rated
        ],
        usage_seen_at=read_at,
    )
    outcomes: list[Outcome] = []
    drafts: list[Draft] = []
    adjusted = [each.subscription for each in rated if each.adjusts and each.key in taken]
    await mark_seen(session, adjusted, read_at)
    for each in rated:
        if each.key not in taken:
            outcomes.append(Outcome(n=each.item.n, state=ItemState.ALREADY_BILLED))
            continue
        outcomes.append(_outcome(each, ItemState.DRAFTED))
        if each.invoice_id is not None:
            drafts.append(_draft(each, run, cut_id, each.invoice_id))
    if drafts:
        connection = await session.connection()
        await copy_rows(connection, "invoice_draft", DRAFT_COLUMNS, [draft_record(draft) for draft in drafts])
    return outcomes


def _rate(
    item: Item,
    subscription: Subscription,
    plan: Plan,
    usage: Mapping[str, MeterUsage],
    late: Late | None,
    write_off: Decimal,
) -> _RatedItem | Outcome:
    """`late` is what the invoice has to take along; None where another one does."""
    try:
        lines = [] if late is None else late.lines()
        if item.period.is_empty:
            rated = closing(subscription.currency, lines, write_off)
        else:
            rated = rate(plan, subscription.currency, item.period, subscription.quantities, usage)
            rated = with_adjustments(rated, lines)
    except BillingRuleError as error:
        return Outcome(n=item.n, state=ItemState.FAILED, reason=str(error))
    return _RatedItem(item, subscription, rated, None if rated.skip else uuid7(), adjusts=late is not None)


def _is_cut_short(item: Item, subscription: Subscription, plan: Plan) -> bool:
    if subscription.ends_at is None or item.period.is_empty:
        return False
    return subscription.schedule(plan.interval).period_at(item.period.start) != item.period


def _outcome(each: _RatedItem, state: ItemState) -> Outcome:
    return Outcome(
        n=each.item.n,
        state=ItemState.SKIPPED if each.rated.skip else state,
        invoice_id=each.invoice_id if state is ItemState.DRAFTED else None,
        currency=each.rated.currency,
        total=each.rated.total,
        reason=each.rated.skip,
    )


def _draft(each: _RatedItem, run: Run, cut_id: UUID, invoice_id: UUID) -> Draft:
    subscription = each.subscription
    return Draft(
        tenant_id=subscription.tenant_id,
        id=invoice_id,
        run_id=run.id,
        kind=PERIOD_INVOICE,
        subscription_id=subscription.id,
        account=subscription.account,
        seller_code=subscription.seller_code,
        plan_code=subscription.plan_code,
        plan_version=subscription.plan_version,
        currency=each.rated.currency,
        period_from=each.item.period.start,
        period_to=each.item.period.end,
        cut_id=cut_id,
        total=each.rated.total,
        issued_at=each.item.billed_at,
        lines=[stored_line(n, line) for n, line in enumerate(each.rated.lines, start=1)],
    )


def stored_exact(amount: Decimal) -> Decimal:
    """An exact amount as a line keeps it."""
    exponent = amount.as_tuple().exponent
    return amount.quantize(_STORED_EXACT, context=EXACT) if isinstance(exponent, int) and exponent < -40 else amount


def stored_line(n: int, line: Line) -> StoredLine:
    return StoredLine(
        n=n,
        charge=line.charge,
        kind=line.kind.value,
        description=line.description,
        quantity=line.quantity,
        unit_amount=line.unit_amount,
        exact_amount=stored_exact(line.exact_amount),
        amount=line.amount,
        formula=line.formula,
        inputs=line.inputs,
        usage_count=None if line.usage is None else line.usage.count,
        usage_total=None if line.usage is None else line.usage.total,
        usage_rollups=None if line.usage is None else line.usage.rollups,
        usage_digest=None if line.usage is None else line.usage.digest,
        period_from=None if line.period is None else line.period.start,
        period_to=None if line.period is None else line.period.end,
    )
