"""Use cases of `bill_from`. Each takes the caller's transaction and does not commit."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.bill_from import repository
from billing_service.domain.errors import InvalidScheduleError
from billing_service.subscriptions import repository as subscriptions
from billing_service.subscriptions.service import billed_from, publish_standing
from tenantry import Conflict


async def get_bill_from(session: AsyncSession, tenant_id: UUID) -> tuple[datetime | None, datetime | None]:
    """What is stated, and what holds: that, or the beginning of the first subscription."""
    stated = (await repository.bill_froms(session, [tenant_id])).get(tenant_id)
    return stated, billed_from(stated, await subscriptions.of_tenant(session, tenant_id))


async def put_bill_from(session: AsyncSession, tenant_id: UUID, bill_from: datetime | None) -> datetime | None:
    """State from when the tenant's usage is billed, or with None that nothing is stated; returns what holds then.

    Repeatable. Raises InvalidScheduleError within an hour, by which usage is kept, and Conflict where it would change
    what has been billed.
    """
    if bill_from is not None and bill_from.timestamp() % 3600:
        raise InvalidScheduleError("bill_from is not a whole hour in UTC, where usage is kept")
    former = await repository.lock(session, tenant_id)
    if former != bill_from:
        stated = [each for each in (former, bill_from) if each is not None]
        since = min(stated) if len(stated) > 1 else None
        if await repository.is_billed_within(session, tenant_id, since, max(stated)):
            raise Conflict("a period that the change would touch has been billed")
        await repository.put(session, tenant_id, bill_from)
        await publish_standing(session, tenant_id)
    return billed_from(bill_from, await subscriptions.of_tenant(session, tenant_id))
