"""Use cases of reading the trail. They change nothing."""

import asyncio
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import repository
from tenant_service.domain.audit_trail import TrailCheck, Verification


async def verify(session: AsyncSession, chain_id: UUID | None = None) -> Verification:
    """Compute a chain anew, or every chain, as of one instant; its session is one that nothing was asked of before.

    Two statements, however many the chains are, and the memory of a page of entries and of every chain's end.
    """
    await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    ends = await repository.find_ends(session, chain_id)
    check = TrailCheck()
    async for page in repository.pages_of_entries(session, chain_id):
        # Hashing a million entries takes a minute, and other requests do not wait for it.
        await asyncio.to_thread(check.follow, page)
    return check.verify(ends)
