"""One turn of the saga worker: claim steps that are due, do their work, say what comes next. One transaction."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import WORKER
from tenant_service.domain.saga import CHAINED, CONSEQUENCES, RunKind, RunState, StepFailure, StepName, StepState
from tenant_service.runs import due_steps, repository
from tenant_service.runs.due_steps import Claimed
from tenant_service.runs.steps import SagaSettings, StepOutcome, StepWork, Waiting
from tenant_service.tenants.repository import lock_tenant
from tenant_service.tenants.service import command_tenant
from tenantry import TenantryError, span

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# A turn costs 12 ms and half a millisecond more for each run. Few enough that who has just signed up waits less than
# a tenth of a second until the turn before theirs is over, enough that a thousand are no more work than they must be.
STEPS_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Turn:
    """What was done for one step: the kind of the run, the step and the state that it is in now."""

    run: RunKind
    step: StepName
    state: StepState


async def take_turns(
    session: AsyncSession,
    work: Mapping[StepName, StepWork],
    settings: SagaSettings,
    now: datetime,
    *,
    limit: int = STEPS_AT_ONCE,
) -> list[Turn]:
    """Carry at most `limit` due steps forward, together; none where none is due. The caller commits.

    The effects of a step and its new state commit together, so a process that dies in between has done nothing, and
    the next one to claim the step begins it again. Steps of one kind are worked on as a set; where the set fails, each
    by itself. One that raises is undone (savepoint) and tried again later, or, with its budget used up, handed to an
    operator.
    """
    claimed = await due_steps.claim_due_steps(session, now, limit)
    turns: list[Turn] = []
    while claimed:
        finished: list[Claimed] = []
        for (kind, name), group in _by_work(claimed).items():
            for one in group:
                if one.step.state is StepState.PENDING:
                    one.step.attempt += 1
                    one.step.started_at = now
            await session.flush()
            with _span(kind, name, group):
                outcomes = await _work_on(session, work[name], group, settings, now)
            for one, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, StepFailure):
                    await _fail(session, one, outcome, settings, now)
                elif isinstance(outcome, Waiting):
                    one.step.state, one.step.next_retry_at = StepState.WAITING, outcome.until
                else:
                    _succeed(one, now)
                    finished.append(one)
                turns.append(Turn(kind, name, one.step.state))
        claimed = await _go_on(session, finished, now)
    await session.flush()
    return turns


def _span(kind: RunKind, name: StepName, group: Sequence[Claimed]) -> AbstractContextManager[object]:
    """A span of the step: in the trace of its run, or, where it is done for several, linked to theirs."""
    origins = [origin for one in group if (origin := one.run.data.get(repository.TRACEPARENT)) is not None]
    title = f"step {kind} {name}"
    attributes: dict[str, str | int] = {"saga.runs": len(group)}
    if len(group) == len(origins) == 1:
        if (tenant_id := group[0].run.tenant_id) is not None:
            attributes["tenant.id"] = str(tenant_id)
        return span(title, parent=origins[0], attributes=attributes)
    return span(title, links=tuple(origins), attributes=attributes)


def _by_work(claimed: Sequence[Claimed]) -> Mapping[tuple[RunKind, StepName], list[Claimed]]:
    groups: dict[tuple[RunKind, StepName], list[Claimed]] = {}
    for one in claimed:
        groups.setdefault((one.run.kind, one.step.name), []).append(one)
    return groups


async def _work_on(
    session: AsyncSession, work: StepWork, group: Sequence[Claimed], settings: SagaSettings, now: datetime
) -> Sequence[StepOutcome | StepFailure]:
    try:
        async with session.begin_nested():
            return await work(session, group, settings, now)
    except Exception as error:  # noqa: BLE001 - whatever a step raises is its failure, not the worker's end
        failure = _failure_of(error, group)
    # The rollback has expired the rows; they are still locked.
    await due_steps.reload(session, group)
    if len(group) == 1:
        return [failure]
    return [outcome for one in group for outcome in await _work_on(session, work, [one], settings, now)]


def _failure_of(error: Exception, group: Sequence[Claimed]) -> StepFailure:
    """Why the work did not succeed. Raises the error itself where the connection is lost, and with it the rows."""
    if isinstance(error, TenantryError):
        return StepFailure(error.type, str(error))
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        raise error
    _log.warning("step_failed", steps=len(group), exc_info=error)
    if isinstance(error, DBAPIError):
        return StepFailure("database", type(error.orig).__name__)
    return StepFailure("unexpected", type(error).__name__)


def _succeed(one: Claimed, now: datetime) -> None:
    step = one.step
    step.state, step.next_retry_at, step.ended_at = StepState.SUCCEEDED, None, now
    step.error_code = step.error_detail = None


async def _go_on(session: AsyncSession, finished: Sequence[Claimed], now: datetime) -> Sequence[Claimed]:
    """End the runs whose last step this was; of the others, those that go on in this transaction are returned."""
    if not finished:
        return []
    following = await repository.steps_after(session, [one.step for one in finished])
    chained: list[Claimed] = []
    left_to_others = False
    for one in finished:
        run, after = one.run, following.get(one.run.id)
        if after is None:
            run.state = RunState.CANCELLED if run.state is RunState.COMPENSATING else RunState.SUCCEEDED
            run.ended_at = now
            continue
        after.state = StepState.PENDING
        if after.name in CHAINED:
            chained.append(Claimed(run, after))
        else:
            left_to_others = True
    await session.flush()
    if left_to_others:
        await due_steps.wake_workers(session)
    return chained


async def _fail(
    session: AsyncSession, one: Claimed, failure: StepFailure, settings: SagaSettings, now: datetime
) -> None:
    run, step = one.run, one.step
    step.error_code, step.error_detail = failure.code, failure.detail
    again_at = settings.retry.next_attempt(step.attempt - step.budget_start, failure, now)
    if again_at is not None:
        step.state, step.next_retry_at = StepState.PENDING, again_at
        return
    undoing = run.state is RunState.COMPENSATING
    step.state, step.next_retry_at, step.ended_at = StepState.FAILED, None, now
    run.state = RunState.NEEDS_OPERATOR
    command = CONSEQUENCES[run.kind].failed
    if run.tenant_id is None or command is None or undoing:
        return
    await session.flush()
    row, clock = await lock_tenant(session, run.tenant_id)
    note = f"{failure.code}: {failure.detail}"
    await command_tenant(session, row, clock, command, actor=WORKER, now=now, note=note)
