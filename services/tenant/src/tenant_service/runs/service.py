"""What an operator does with a run. The caller opens the transaction and commits it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.domain.lifecycle import Command
from tenant_service.domain.saga import CONSEQUENCES, OPEN, RunState, StepName, StepState, compensations
from tenant_service.identity.api_keys import revoke_api_keys_of
from tenant_service.invitations.service import close_invitations
from tenant_service.models import SagaRunRow, SagaStepRow
from tenant_service.runs import repository
from tenant_service.runs.due_steps import wake_workers
from tenant_service.runs.repository import Run
from tenant_service.support.service import end_access_of
from tenant_service.tenants.repository import lock_tenant
from tenant_service.tenants.service import command_tenant
from tenantry import Conflict, InvalidRequest


class RunNotStuck(Conflict):
    """Only a run that needs an operator can be tried again."""

    type = "run-not-stuck"
    title = "The run does not wait for an operator"


class RunOver(Conflict):
    """A run that has ended cannot be cancelled."""

    type = "run-over"
    title = "The run is over"


class RunBeingUndone(Conflict):
    """A run that has been cancelled is undone to its end."""

    type = "run-being-undone"
    title = "The run is being undone"


async def retry_run(
    session: AsyncSession,
    subject_id: UUID,
    run_id: UUID,
    *,
    actor: Actor,
    now: datetime,
    from_step: StepName | None = None,
) -> Run:
    """Go on from the step that failed, or from an earlier one, with a fresh retry budget.

    Raises `NotFound`, `RunNotStuck`, and `InvalidRequest` for a step that the run has not come to.
    """
    run = await repository.lock_run(session, subject_id, run_id)
    if run.row.state is not RunState.NEEDS_OPERATOR:
        raise RunNotStuck(f"The run is {run.row.state}")
    failed = next(step for step in run.steps if step.state is StepState.FAILED)
    undoing = failed.compensates is not None
    first = failed if from_step is None else _step_to_repeat(run, failed, from_step)
    if not undoing:
        await _command(session, run.row, CONSEQUENCES[run.row.kind].retried, actor=actor, now=now)
    run.row.state = RunState.COMPENSATING if undoing else RunState.RUNNING
    for step in run.steps[first.position : failed.position + 1]:
        step.state = StepState.PENDING if step is first else StepState.QUEUED
        step.next_retry_at = step.ended_at = None
        step.budget_start = step.attempt
        if step is not failed:
            # It is to be done again, so what services said to it before is no answer.
            step.answers_from = step.attempt + 1
    await _close(session, run.row, "run.retry", actor, now, {"from_step": first.name})
    await wake_workers(session)
    return run


def _step_to_repeat(run: Run, failed: SagaStepRow, name: StepName) -> SagaStepRow:
    """The step of this name that stands before the failed one, or is it, and undoes or does as that one."""
    done = run.steps[: failed.position + 1]
    for step in done:
        if step.name is name and (step.compensates is None) == (failed.compensates is None):
            return step
    names = ", ".join(step.name for step in done if (step.compensates is None) == (failed.compensates is None))
    detail = f"The run can be tried again from {names}"
    raise InvalidRequest(detail, errors=[{"loc": ["body", "from_step"], "msg": detail}])


async def cancel_run(session: AsyncSession, subject_id: UUID, run_id: UUID, *, actor: Actor, now: datetime) -> Run:
    """Give the run up: no step of it is begun any more, and what the begun ones have made is undone.

    A tenant that was being provisioned is cancelled at once, with the ways into it (its open invitations, keys and
    support access), and its run when the services have given its places back;
    a clock that was advanced keeps its time. A run that could not be undone is left as it is.
    Raises `NotFound`, `RunOver`, `RunBeingUndone`.
    """
    run = await repository.lock_run(session, subject_id, run_id)
    if run.row.state is RunState.COMPENSATING:
        raise RunBeingUndone("Wait until it is cancelled or needs an operator")
    if run.row.state not in OPEN:
        raise RunOver(f"The run is {run.row.state}")
    undoing = any(step.compensates is not None for step in run.steps)
    undo = [] if undoing else compensations(run.row.kind, map(repository.progress_of, run.steps))
    if not undoing:
        await _command(session, run.row, CONSEQUENCES[run.row.kind].cancelled, actor=actor, now=now)
    for step in run.steps:
        if step.state is not StepState.SUCCEEDED:
            step.state, step.next_retry_at, step.ended_at = StepState.CANCELLED, None, now
    if undo:
        run.row.state = RunState.COMPENSATING
        await session.flush()
        await repository.add_steps(session, [(run.row, len(run.steps), undo)])
    else:
        run.row.state, run.row.ended_at = RunState.CANCELLED, now
    await _close(session, run.row, "run.cancel", actor, now, {"undone_by": [name for name, _ in undo]})
    return await repository.lock_run(session, subject_id, run_id)


async def _command(
    session: AsyncSession, run: SagaRunRow, command: Command | None, *, actor: Actor, now: datetime
) -> None:
    if run.tenant_id is None or command is None:
        return
    row, clock = await lock_tenant(session, run.tenant_id)
    await command_tenant(session, row, clock, command, actor=actor, now=now, note=f"run {run.id}")
    if command is Command.CANCEL_PROVISIONING:
        await close_invitations(session, row, actor=actor, now=now)
        await revoke_api_keys_of(session, row, actor=actor, now=now)
        await end_access_of(session, row, actor=actor, now=now)


async def _close(
    session: AsyncSession, run: SagaRunRow, action: str, actor: Actor, now: datetime, detail: Mapping[str, Any]
) -> None:
    await session.flush()
    await audit.record(
        session,
        actor,
        action,
        target=str(run.id),
        chain_id=run.tenant_id or audit.PLATFORM_CHAIN,
        now=now,
        detail={"kind": run.kind, **detail},
    )
