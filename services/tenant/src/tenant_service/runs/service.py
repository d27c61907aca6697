"""What an operator does with a run. The caller opens the transaction and commits it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.domain.lifecycle import Command
from tenant_service.domain.saga import RunState, StepState
from tenant_service.models import SagaRunRow
from tenant_service.runs import repository
from tenant_service.runs.repository import Run
from tenant_service.tenants.repository import lock_tenant
from tenant_service.tenants.service import command_tenant
from tenantry import Conflict


class RunNotStuck(Conflict):
    """Only a run that needs an operator can be tried again."""

    type = "run-not-stuck"
    title = "The run does not wait for an operator"


class RunOver(Conflict):
    """A run that has ended cannot be cancelled."""

    type = "run-over"
    title = "The run is over"


async def retry_run(session: AsyncSession, subject_id: UUID, run_id: UUID, *, actor: Actor, now: datetime) -> Run:
    """Go on from the step that failed, with a fresh retry budget. Raises `NotFound`, `RunNotStuck`."""
    run = await repository.lock_run(session, subject_id, run_id)
    if run.row.state is not RunState.NEEDS_OPERATOR:
        raise RunNotStuck(f"The run is {run.row.state}")
    await _command(session, run.row, Command.PROVISION, actor=actor, now=now)
    run.row.state = RunState.RUNNING
    for step in run.steps:
        if step.state is StepState.FAILED:
            step.state, step.next_retry_at, step.ended_at = StepState.PENDING, None, None
            step.budget_start = step.attempt
    await _close(session, run.row, "run.retry", actor, now)
    await repository.wake_workers(session)
    return run


async def cancel_run(session: AsyncSession, subject_id: UUID, run_id: UUID, *, actor: Actor, now: datetime) -> Run:
    """Give the run up: no step of it is begun any more, later answers of services are ignored.

    A tenant that was being provisioned is cancelled; a clock that was advanced keeps its time.
    Raises `NotFound`, `RunOver`.
    """
    run = await repository.lock_run(session, subject_id, run_id)
    if run.row.state not in {RunState.RUNNING, RunState.NEEDS_OPERATOR}:
        raise RunOver(f"The run is {run.row.state}")
    await _command(session, run.row, Command.CANCEL_PROVISIONING, actor=actor, now=now)
    run.row.state, run.row.ended_at = RunState.CANCELLED, now
    for step in run.steps:
        if step.state is not StepState.SUCCEEDED:
            step.state, step.next_retry_at, step.ended_at = StepState.CANCELLED, None, now
    await _close(session, run.row, "run.cancel", actor, now)
    return run


async def _command(session: AsyncSession, run: SagaRunRow, command: Command, *, actor: Actor, now: datetime) -> None:
    if run.tenant_id is None:
        return
    row, clock = await lock_tenant(session, run.tenant_id)
    await command_tenant(session, row, clock, command, actor=actor, now=now, note=f"run {run.id}")


async def _close(session: AsyncSession, run: SagaRunRow, action: str, actor: Actor, now: datetime) -> None:
    await session.flush()
    await audit.record(
        session,
        actor,
        action,
        target=str(run.id),
        chain_id=run.tenant_id or audit.PLATFORM_CHAIN,
        now=now,
        detail={"kind": run.kind},
    )
