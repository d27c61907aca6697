"""Use cases of subscriptions. Each takes the caller's transaction and does not commit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from billing_service.catalog.repository import plan_versions
from billing_service.catalog.service import get_plan
from billing_service.domain.errors import BillingRuleError, UnsupportedPriceError
from billing_service.domain.periods import Anchor
from billing_service.subscriptions import repository
from billing_service.subscriptions.models import Subscription
from tenantry import Clock, Conflict, NotFound, Tenant, uuid7
from tenantry.events import OutboxEvent, append_outbox, append_outbox_many

STATE_TOPIC = "billing.state.v1"
STATE_TYPE = "billing.state.v1"
DEFAULT_SELLER = "default"


async def subscribe(
    session: AsyncSession,
    tenant: Tenant,
    *,
    plan_code: str,
    plan_version: int | None,
    currency: str | None,
    quantities: Mapping[str, Decimal],
    account: str | None,
    time_zone: str,
    anchor: Anchor,
    start_at: datetime | None,
    ends_at: datetime | None,
    clock: Clock,
) -> Subscription:
    """Subscribe `tenant` to a version of a plan (the latest by default), from now on its own clock by default.

    Publishes the tenant's standing. Raises NotFound for an unknown plan and BillingRuleError for what the plan does
    not allow. Not repeatable by itself: a second call is a second subscription.
    """
    pinned = await get_plan(session, plan_code, plan_version)
    plan = pinned.plan
    chosen = currency or plan.currencies[0]
    if chosen not in plan.currencies:
        raise UnsupportedPriceError(f"plan {plan_code!r} has no prices in {chosen}")
    known = {charge.quantity for charge in plan.charges if charge.quantity is not None}
    if unknown := sorted(set(quantities) - known):
        raise BillingRuleError(f"plan {plan_code!r} charges for no quantity {unknown[0]!r}")
    now = tenant.now(clock)
    subscription = Subscription(
        tenant_id=tenant.id,
        id=uuid7(),
        account=account or tenant.slug,
        seller_code=DEFAULT_SELLER,
        plan_code=pinned.code,
        plan_version=pinned.version,
        currency=chosen,
        quantities=dict(quantities),
        time_zone=time_zone,
        anchor=anchor,
        start_at=start_at or now,
        ends_at=ends_at,
        version=1,
        created_at=now,
    )
    subscription.schedule(plan.interval).validated()
    await repository.insert(session, subscription)
    await publish_standing(session, subscription.tenant_id)
    return subscription


async def cancel(session: AsyncSession, subscription_id: UUID, at: datetime) -> Subscription:
    """End a subscription at `at`, whose local day is still billed. The same `at` again changes nothing.

    Publishes the tenant's standing. Raises NotFound, and Conflict where `at` lies after its present end or before the
    end of what has been billed.
    """
    subscription = await repository.find(session, subscription_id, lock=True)
    if subscription is None:
        raise NotFound("no such subscription")
    if subscription.ends_at == at:
        return subscription
    if subscription.ends_at is not None and at > subscription.ends_at:
        raise Conflict("the subscription ends earlier; a new one can follow it")
    interval = (await get_plan(session, subscription.plan_code, subscription.plan_version)).plan.interval
    ended = replace(subscription, ends_at=at, version=subscription.version + 1)
    ended.schedule(interval).validated()
    billed = (await repository.billed_starts(session, [subscription], "period")).get(subscription.id, frozenset())
    current = subscription.schedule(interval).period_at(at)
    if any(start >= at or (current is not None and start == current.start < at) for start in billed):
        raise Conflict("a period that reaches beyond that instant has been billed already")
    await repository.end(session, subscription, at)
    await publish_standing(session, subscription.tenant_id)
    return ended


async def withdraw_standings(connection: AsyncConnection, standings: Sequence[Row[Any]]) -> None:
    """Take what the topic says of tenants off it, whose standings are deleted in this transaction."""
    events = [
        OutboxEvent(
            topic=STATE_TOPIC,
            key=str(each.tenant_id),
            type=STATE_TYPE,
            tenant_id=each.tenant_id,
            version=each.version + 1,
            data=None,
        )
        for each in standings
    ]
    await append_outbox_many(connection, events)


async def publish_standing(session: AsyncSession, tenant_id: UUID) -> None:
    """Tell the others how the tenant stands: its plans, over or still to come included, and what is billed from when.

    Where two plans hold at the same time the newer one is the stronger, and the newest is that of the document itself.
    """
    version, bill_from = await repository.bump_standing(session, tenant_id)
    subscribed = await repository.of_tenant(session, tenant_id)
    plans = await plan_versions(session, [(each.plan_code, each.plan_version) for each in subscribed])
    held = [
        {
            "plan": each.plan_code,
            "plan_version": each.plan_version,
            "entitlements": plans[each.plan_code, each.plan_version].entitlements,
            "starts_at": each.start_at,
            "ends_at": each.ends_at,
        }
        for each in subscribed
    ]
    newest = held[-1] if held else {"plan": None, "plan_version": None, "entitlements": {}}
    await append_outbox(
        session,
        topic=STATE_TOPIC,
        key=str(tenant_id),
        type=STATE_TYPE,
        tenant_id=tenant_id,
        version=version,
        data={
            "tenant_id": str(tenant_id),
            "plan": newest["plan"],
            "plan_version": newest["plan_version"],
            "entitlements": newest["entitlements"],
            "subscriptions": held,
            "standing": "good",
            "bill_from": billed_from(bill_from, subscribed),
            "version": version,
        },
    )


def billed_from(stated: datetime | None, subscribed: Sequence[Subscription]) -> datetime | None:
    """What was stated, or the beginning of the first subscription; None where nothing is billed."""
    return stated or min((each.begins for each in subscribed), default=None)
