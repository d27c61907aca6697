"""Routes of runs: a tenant's, and those of a test clock."""

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.clocks.repository import find_clock
from tenant_service.dependencies import CurrentActor, Now, Platform, TenantReference, Transaction
from tenant_service.runs import repository, service
from tenant_service.runs.schemas import RunOut, RunRetry
from tenant_service.tenants.repository import find_tenant
from tenantry.http import Cursor, Limit, Page, decode_cursor, encode_cursor

router = APIRouter(prefix="/v1/tenants/{tenant_id}/runs", tags=["runs"], dependencies=[Platform])
clock_router = APIRouter(prefix="/v1/test-clocks/{clock_id}/runs", tags=["test clocks"], dependencies=[Platform])


async def _page(session: AsyncSession, subject_id: UUID, limit: int, cursor: str | None) -> Page[RunOut]:
    of = f"runs {subject_id}"
    before = None if cursor is None else decode_cursor(cursor, UUID, of=of)
    runs = await repository.list_runs(session, subject_id, before=before, limit=limit + 1)
    items = [RunOut.of(run) for run in runs[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id, of=of) if len(runs) > limit else None)


@router.get("")
async def list_runs(
    tenant_id: TenantReference, session: Transaction, limit: Limit = 50, cursor: Cursor = None
) -> Page[RunOut]:
    """The tenant's runs, the newest first, with the reason where one has failed."""
    tenant, _ = await find_tenant(session, tenant_id)
    return await _page(session, tenant.id, limit, cursor)


@router.post("/{run_id}/retry")
async def retry_run(
    tenant_id: TenantReference,
    run_id: UUID,
    session: Transaction,
    actor: CurrentActor,
    now: Now,
    body: RunRetry | None = None,
) -> RunOut:
    """Go on from the step that failed, or from an earlier one."""
    tenant, _ = await find_tenant(session, tenant_id)
    from_step = None if body is None else body.from_step
    return RunOut.of(await service.retry_run(session, tenant.id, run_id, actor=actor, now=now, from_step=from_step))


@router.post("/{run_id}/cancel")
async def cancel_run(
    tenant_id: TenantReference, run_id: UUID, session: Transaction, actor: CurrentActor, now: Now
) -> RunOut:
    """Give the run up and undo what it has done; a tenant that was being provisioned is `cancelled` at once."""
    tenant, _ = await find_tenant(session, tenant_id)
    return RunOut.of(await service.cancel_run(session, tenant.id, run_id, actor=actor, now=now))


@clock_router.get("")
async def list_clock_runs(
    clock_id: UUID, session: Transaction, limit: Limit = 50, cursor: Cursor = None
) -> Page[RunOut]:
    """The clock's advances, the newest first."""
    clock = await find_clock(session, clock_id)
    return await _page(session, clock.id, limit, cursor)


@clock_router.post("/{run_id}/retry")
async def retry_clock_run(clock_id: UUID, run_id: UUID, session: Transaction, actor: CurrentActor, now: Now) -> RunOut:
    """Ask again the services that have not caught up."""
    return RunOut.of(await service.retry_run(session, clock_id, run_id, actor=actor, now=now))


@clock_router.post("/{run_id}/cancel")
async def cancel_clock_run(clock_id: UUID, run_id: UUID, session: Transaction, actor: CurrentActor, now: Now) -> RunOut:
    """Wait for them no longer; the clock keeps its time."""
    return RunOut.of(await service.cancel_run(session, clock_id, run_id, actor=actor, now=now))
