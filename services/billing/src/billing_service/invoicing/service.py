"""Use cases of runs. Each takes the caller's transaction and does not commit."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.domain.runs import RunState
from billing_service.invoicing import run_repository
from billing_service.invoicing.models import Run
from tenantry import Clock, NotFound, TenantDirectory, TenantNotFound, uuid7


async def request_run(
    session: AsyncSession,
    directory: TenantDirectory,
    *,
    as_of: datetime,
    tenants: Sequence[str] | None,
    dry_run: bool,
    grace_seconds: int,
    requested_by: str,
    clock: Clock,
) -> Run:
    """Store a run for the workers. Raises TenantNotFound where one of `tenants` (ids or external ids) is unknown.

    A second run over the same periods is harmless: it finds them billed.
    """
    chosen: tuple[UUID, ...] | None = None
    if tenants is not None:
        resolved = [directory.resolve(reference) for reference in tenants]
        if any(tenant is None for tenant in resolved):
            raise TenantNotFound("There is no such tenant.")
        chosen = tuple(dict.fromkeys(tenant.id for tenant in resolved if tenant is not None))
    run = Run(
        id=uuid7(),
        as_of=as_of,
        tenants=chosen,
        dry_run=dry_run,
        grace_seconds=grace_seconds,
        state=RunState.REQUESTED,
        cut_id=None,
        error=None,
        requested_by=requested_by,
        created_at=clock.now(),
        cut_requested_at=None,
        finished_at=None,
    )
    await run_repository.insert(session, run)
    return run


async def get_run(session: AsyncSession, run_id: UUID) -> Run:
    run = await run_repository.find(session, run_id)
    if run is None:
        raise NotFound
    return run
