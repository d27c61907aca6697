"""One turn of the saga worker: claim a step that is due, do its work, say what comes next. One transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import WORKER
from tenant_service.domain.lifecycle import Command
from tenant_service.domain.saga import RunState, StepFailure, StepName, StepState
from tenant_service.models import SagaRunRow, SagaStepRow
from tenant_service.runs import repository
from tenant_service.runs.steps import NoAnswer, SagaSettings, ServiceRefused, StepOutcome, StepWork, Waiting
from tenant_service.tenants.repository import lock_tenant
from tenant_service.tenants.service import command_tenant
from tenantry import TenantryError

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn did: the kind of the run, the step and the state that it is in now."""

    run: str
    step: StepName
    state: StepState


async def take_turn(
    session: AsyncSession, work: Mapping[StepName, StepWork], settings: SagaSettings, now: datetime
) -> Turn | None:
    """Carry one due step forward; None where none is due. The caller commits.

    The effects of a step and its new state commit together, so a process that dies in between has done nothing, and
    the next one to claim the step begins it again. A step that raises is undone (savepoint) and tried again later, or,
    with its budget used up, handed to an operator.
    """
    claimed = await repository.claim_due_step(session, now)
    if claimed is None:
        return None
    run, step = claimed
    if step.state is StepState.PENDING:
        step.attempt += 1
        step.started_at = now
    await session.flush()
    outcome = await _attempt(session, run, step, work[step.name], settings, now)
    if isinstance(outcome, StepFailure):
        await _fail(session, run, step, outcome, settings, now)
    elif isinstance(outcome, Waiting):
        step.state, step.next_retry_at = StepState.WAITING, outcome.until
    else:
        await _finish(session, run, step, now)
    return Turn(run.kind, step.name, step.state)


async def _attempt(
    session: AsyncSession,
    run: SagaRunRow,
    step: SagaStepRow,
    work: StepWork,
    settings: SagaSettings,
    now: datetime,
) -> StepOutcome | StepFailure:
    try:
        async with session.begin_nested():
            return await work(session, run, step, settings, now)
    except ServiceRefused as refused:
        code, detail = refused.args
        return StepFailure(code, detail, permanent=True)
    except NoAnswer as error:
        return StepFailure("no-answer", f"no answer in time from {error}")
    except TenantryError as error:
        return StepFailure(error.type, str(error))
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        _log.exception("step_failed", run_id=str(run.id), step=step.name)
        return StepFailure("database", type(error.orig).__name__)
    except Exception as error:  # noqa: BLE001 - whatever a step raises is its failure, not the worker's end
        _log.exception("step_failed", run_id=str(run.id), step=step.name)
        return StepFailure("unexpected", type(error).__name__)


async def _finish(session: AsyncSession, run: SagaRunRow, step: SagaStepRow, now: datetime) -> None:
    step.state, step.next_retry_at, step.ended_at = StepState.SUCCEEDED, None, now
    step.error_code = step.error_detail = None
    following = await repository.next_step(session, step)
    if following is None:
        run.state, run.ended_at = RunState.SUCCEEDED, now
        return
    following.state = StepState.PENDING
    await session.flush()
    await repository.wake_workers(session)


async def _fail(
    session: AsyncSession,
    run: SagaRunRow,
    step: SagaStepRow,
    failure: StepFailure,
    settings: SagaSettings,
    now: datetime,
) -> None:
    # The savepoint's rollback has expired the rows; they are still locked.
    await session.refresh(run)
    await session.refresh(step)
    step.error_code, step.error_detail = failure.code, failure.detail
    again_at = settings.retry.next_attempt(step.attempt - step.budget_start, failure, now)
    if again_at is not None:
        step.state, step.next_retry_at = StepState.PENDING, again_at
        return
    step.state, step.next_retry_at, step.ended_at = StepState.FAILED, None, now
    run.state = RunState.NEEDS_OPERATOR
    await session.flush()
    if run.tenant_id is not None:
        row, clock = await lock_tenant(session, run.tenant_id)
        reason = f"{failure.code}: {failure.detail}"
        await command_tenant(session, row, clock, Command.FAIL_PROVISIONING, actor=WORKER, now=now, note=reason)
