"""Use cases of a tenant's end. The caller opens the transaction and commits it.

A run is locked before its tenant, as workers do.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import Actor, Deed, record_many
from tenant_service.domain.lifecycle import Command, UnderLegalHold, check_not_gone
from tenant_service.domain.saga import RunKind, RunState
from tenant_service.models import SagaRunRow, TenantRow
from tenant_service.offboarding import repository
from tenant_service.runs.due_steps import wake_workers
from tenant_service.runs.repository import NewRun, Run, add_run, add_runs, lock_run
from tenant_service.runs.service import RunBeingUndone, cancel_run, retry_run
from tenant_service.tenants.document import document
from tenant_service.tenants.repository import find_tenant, lock_tenant, lock_tenants
from tenant_service.tenants.service import Locked, command_tenant, present_of
from tenantry import Conflict, NotFound, Tenant, TenantStatus

# In the data of a run: the grace that was asked for, in seconds.
GRACE = "grace_seconds"

_LEAVING = frozenset({TenantStatus.CANCELLED, TenantStatus.OFFBOARDING, TenantStatus.PURGING})


class NotOffboarding(Conflict):
    """There is no offboarding to go on with, or to take back."""

    type = "not-offboarding"
    title = "The tenant is not being offboarded"


class OtherGrace(Conflict):
    """An offboarding keeps the grace that it began with."""

    type = "offboarding-running"
    title = "The tenant is being offboarded with another grace"


class GraceRunning(Conflict):
    """The data stays until the grace has ended; an offboarding with a shorter one can be begun instead."""

    type = "grace-running"
    title = "The grace of the offboarding has not ended"


class NotPurged(Conflict):
    """Only a tenant that is gone can have come back with a backup."""

    type = "not-purged"
    title = "The tenant has not been purged"


class ExportExpired(NotFound):
    """The files of an export are kept for a time; another export can be made."""

    status = 410
    type = "export-expired"
    title = "The files of the export have been deleted"


async def offboard_tenant(
    session: AsyncSession,
    reference: str,
    *,
    grace: timedelta,
    export: bool,
    note: str,
    actor: Actor,
    now: datetime,
) -> Tenant:
    """Stop the tenant, export its data where wanted, and delete everything when the grace has ended.

    The grace runs in the tenant's time. Repeating it while it runs changes nothing.
    Raises `NotFound`, `IllegalTransition`, and `OtherGrace` where it runs with another one.
    """
    row, clock = await lock_tenant(session, reference)
    under_way = await repository.open_run(session, row.id)
    if row.status is TenantStatus.OFFBOARDING and under_way is not None:
        if under_way.data.get(GRACE, grace.total_seconds()) != grace.total_seconds():
            detail = "" if row.grace_ends_at is None else f"It ends at {row.grace_ends_at.isoformat()}; "
            raise OtherGrace(f"{detail}take the offboarding back first, and begin it with the other grace")
        return document(row, clock)
    until = present_of(clock, now) + grace
    tenant = await command_tenant(session, row, clock, Command.OFFBOARD, until=until, note=note, actor=actor, now=now)
    await add_run(
        session,
        RunKind.OFFBOARD,
        subject_id=row.id,
        tenant_id=row.id,
        requested_by=actor.impersonator or actor.subject,
        now=now,
        data={"export": export, GRACE: grace.total_seconds()},
    )
    return tenant


async def cancel_offboarding(session: AsyncSession, reference: str, *, actor: Actor, now: datetime) -> Tenant:
    """Take it back inside the grace: the tenant is what it was.

    Raises `NotFound`, `TenantGone`, `NotOffboarding`, `GraceOver`.
    """
    (row, clock), run = await _lock_with_run(session, reference)
    check_not_gone(row.status)
    if row.status is not TenantStatus.OFFBOARDING or run is None:
        raise NotOffboarding(f"The tenant is {row.status}")
    await cancel_run(session, row.id, run.id, actor=actor, now=now)
    row, clock = await lock_tenant(session, row.id)
    return document(row, clock)


async def purge_tenant(session: AsyncSession, reference: str, *, actor: Actor, now: datetime) -> Tenant:
    """Go on with the deletion now that the grace has ended, also where it had got stuck. May be repeated.

    A tenant whose provisioning was cancelled has no grace and nothing to export: its deletion begins here.
    Raises `NotFound`, `NotOffboarding`, `RunBeingUndone`, `GraceRunning`, `UnderLegalHold`.
    """
    (row, clock), run = await _lock_with_run(session, reference)
    if row.status is TenantStatus.PURGED:
        return document(row, clock)
    if row.status is TenantStatus.CANCELLED and run is None:
        run = await _begin_purge_of_cancelled(session, row, actor=actor, now=now)
    if row.status not in _LEAVING or run is None:
        raise NotOffboarding(f"The tenant is {row.status}")
    if row.status is not TenantStatus.PURGING:
        if row.grace_ends_at is not None and present_of(clock, now) < row.grace_ends_at:
            raise GraceRunning(f"It ends at {row.grace_ends_at.isoformat()}")
        if row.legal_hold:
            raise UnderLegalHold("It has to be lifted first")
    if run.state is RunState.NEEDS_OPERATOR:
        await retry_run(session, row.id, run.id, actor=actor, now=now)
    await repository.hurry(session, run.id)
    await wake_workers(session)
    return document(row, clock)


async def purge_again(session: AsyncSession, reference: str, *, actor: Actor, now: datetime) -> Run:
    """Have every service delete what it has of a purged tenant: a restored backup brings it back.

    A run that is at it is not begun twice. Raises `NotFound`, `NotPurged`.
    """
    (row, _), run = await _lock_with_run(session, reference, RunKind.PURGE)
    if row.status is not TenantStatus.PURGED:
        raise NotPurged(f"The tenant is {row.status}")
    run_id = run.id if run is not None else (await _begin_purges(session, [row.id], actor, now))[0]
    return await lock_run(session, row.id, run_id)


async def _lock_with_run(
    session: AsyncSession, reference: str, kind: RunKind = RunKind.OFFBOARD
) -> tuple[Locked, SagaRunRow | None]:
    """The tenant and its open run of this kind, both locked, the run first. Raises `NotFound`.

    A run that somebody else has begun in between is found, and not locked: nobody has worked on it yet.
    """
    known, _ = await find_tenant(session, reference)
    run = await repository.open_run(session, known.id, kind)
    if run is not None:
        await lock_run(session, known.id, run.id)
    tenant = await lock_tenant(session, known.id)
    return tenant, await repository.open_run(session, known.id, kind)


async def _begin_purge_of_cancelled(
    session: AsyncSession, row: TenantRow, *, actor: Actor, now: datetime
) -> SagaRunRow:
    if await repository.open_run(session, row.id, RunKind.PROVISION) is not None:
        raise RunBeingUndone("Its provisioning is still being undone")
    if row.legal_hold:
        raise UnderLegalHold("It has to be lifted first")
    run = await add_run(
        session,
        RunKind.OFFBOARD,
        subject_id=row.id,
        tenant_id=row.id,
        requested_by=actor.impersonator or actor.subject,
        now=now,
        data={"export": False},
    )
    await record_many(
        session, actor, [Deed("tenant.purge_cancelled", str(row.id), row.id, {"run": str(run.id)})], now=now
    )
    return run


async def purge_all_again(session: AsyncSession, since: datetime, *, actor: Actor, now: datetime) -> int:
    """`purge_again` for every tenant whose purge was certified from `since` on; returns how many they are."""
    wanted = await repository.purged_since(session, since)
    await lock_tenants(session, wanted)
    under_way = await repository.open_purges(session, wanted)
    await _begin_purges(session, [each for each in wanted if each not in under_way], actor, now)
    return len(wanted)


async def _begin_purges(
    session: AsyncSession, tenant_ids: Sequence[UUID], actor: Actor, now: datetime
) -> Sequence[UUID]:
    requested_by = actor.impersonator or actor.subject
    wanted = [NewRun(RunKind.PURGE, each, each, requested_by) for each in tenant_ids]
    runs = await add_runs(session, wanted, now=now)
    deeds = [Deed("tenant.purge_again", str(run.subject_id), run.subject_id, {"run": str(run.id)}) for run in runs]
    await record_many(session, actor, deeds, now=now)
    return [run.id for run in runs]


async def export_tenant(session: AsyncSession, reference: str, *, actor: Actor, now: datetime) -> Run:
    """Have every service export the tenant's data. Raises `NotFound`, `Conflict` for one without any."""
    row, _ = await lock_tenant(session, reference)
    if row.status not in {TenantStatus.ACTIVE, TenantStatus.SUSPENDED, TenantStatus.OFFBOARDING}:
        raise Conflict(f"A tenant that is {row.status} has nothing to export")
    run: SagaRunRow = await add_run(
        session,
        RunKind.EXPORT,
        subject_id=row.id,
        tenant_id=row.id,
        requested_by=actor.impersonator or actor.subject,
        now=now,
        data={"export": True},
    )
    return await lock_run(session, row.id, run.id)
