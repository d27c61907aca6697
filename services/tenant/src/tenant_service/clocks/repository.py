"""SQL of test clocks."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.models import TestClockRow
from tenantry import NotFound, TenantClock


async def find_clock(session: AsyncSession, clock_id: UUID, *, lock: bool = False) -> TestClockRow:
    """The clock; locked until the transaction ends where `lock` says so. Raises `NotFound`."""
    row = await session.get(TestClockRow, clock_id, with_for_update=lock or None, populate_existing=lock)
    if row is None:
        raise NotFound
    return row


async def share_clock(session: AsyncSession, clock_id: UUID) -> TenantClock:
    """The clock for a tenant that is about to be bound to it. Raises `NotFound`.

    The shared lock makes a concurrent advance wait until the new tenant is there to be advanced as well; without it
    the tenant's document would keep the time of before.
    """
    statement = select(TestClockRow).where(TestClockRow.id == clock_id).with_for_update(read=True)
    row = (await session.execute(statement)).scalar_one_or_none()
    if row is None:
        raise NotFound
    return TenantClock(id=row.id, now=row.now)
