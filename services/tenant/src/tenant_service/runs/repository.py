"""SQL of runs and their steps."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, insert, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tenant_service.domain.saga import (
    OPEN,
    PLANS,
    AckOutcome,
    Answer,
    Progress,
    RunKind,
    RunState,
    StepName,
    StepState,
)
from tenant_service.models import SagaRequestRow, SagaRunRow, SagaStepRow
from tenant_service.runs.due_steps import WAKE_CHANNEL, wake_workers
from tenant_service.runs.requests import answers_where
from tenantry import NotFound, current_traceparent, uuid7
from tenantry.events import encode_data

# Among a run's data: where in a trace it was asked for, so that what its steps cause is part of that trace.
TRACEPARENT = "traceparent"

NEW_RUN_COLUMNS = "id uuid, kind text, subject_id uuid, tenant_id uuid, data jsonb, requested_by text, steps text[]"
ADDING_RUNS = """
    run AS (
        INSERT INTO system.saga_run (id, kind, subject_id, tenant_id, state, data, requested_by, created_at)
        SELECT id, kind, subject_id, tenant_id, 'running', data, requested_by, CAST(:now AS timestamptz) FROM new_run
    ), step AS (
        INSERT INTO system.saga_step
            (run_id, position, name, state, attempt, budget_start, answers_from, idempotency_key)
        SELECT id, number - 1, name, CASE number WHEN 1 THEN 'pending' ELSE 'queued' END, 0, 0, 0, gen_random_uuid()
        FROM new_run CROSS JOIN LATERAL unnest(steps) WITH ORDINALITY AS plan (name, number)
    )"""
"""Parts of a statement that insert the runs of its part `new_run`, which has `NEW_RUN_COLUMNS`, and their steps."""

_ADD_RUNS = text(
    f"""
    WITH new_run AS (
        SELECT * FROM jsonb_to_recordset(CAST(CAST(:runs AS text) AS jsonb)) AS each ({NEW_RUN_COLUMNS})
    ), {ADDING_RUNS}
    SELECT pg_notify(:channel, '')
    """  # noqa: S608 - made of constants
).bindparams(channel=WAKE_CHANNEL)


@dataclass(frozen=True, slots=True)
class Run:
    """A run with its steps in order, and by step what was asked of services and what they said."""

    row: SagaRunRow
    steps: Sequence[SagaStepRow]
    answers: Mapping[int, Sequence[Answer]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be added; `subject_id` is the tenant or the test clock that it is about."""

    kind: RunKind
    subject_id: UUID
    tenant_id: UUID | None
    requested_by: str
    data: Mapping[str, Any] = field(default_factory=dict)


def progress_of(step: SagaStepRow) -> Progress:
    return Progress(step.position, step.name, step.state, step.attempt)


async def add_run(
    session: AsyncSession,
    kind: RunKind,
    *,
    subject_id: UUID,
    tenant_id: UUID | None,
    requested_by: str,
    now: datetime,
    data: Mapping[str, Any] | None = None,
) -> SagaRunRow:
    """Insert a run with the steps of its plan, the first of them due at once, and wake the workers.

    Returns it as it was written; the session does not hold it.
    """
    (run,) = await add_runs(session, [NewRun(kind, subject_id, tenant_id, requested_by, data or {})], now=now)
    return run


async def add_runs(session: AsyncSession, wanted: Sequence[NewRun], *, now: datetime) -> Sequence[SagaRunRow]:
    """Insert runs as `add_run` inserts one: one statement, however many they are."""
    if not wanted:
        return []
    runs = [run_values(new) for new in wanted]
    await session.execute(_ADD_RUNS, {"runs": encode_data(runs).decode(), "now": now})
    written = {"state": RunState.RUNNING, "created_at": now}
    return [SagaRunRow(**{name: value for name, value in run.items() if name != "steps"}, **written) for run in runs]


def run_values(new: NewRun) -> dict[str, Any]:
    """A run as a row of what `ADDING_RUNS` calls `new_run`."""
    traceparent = current_traceparent()
    origin = {} if traceparent is None else {TRACEPARENT: traceparent}
    return {
        "id": uuid7(),
        "kind": new.kind,
        "subject_id": new.subject_id,
        "tenant_id": new.tenant_id,
        "data": {**new.data, **origin},
        "requested_by": new.requested_by,
        "steps": PLANS[new.kind],
    }


async def add_steps(
    session: AsyncSession, wanted: Iterable[tuple[SagaRunRow, int, Sequence[tuple[StepName, int | None]]]]
) -> None:
    """Insert steps from a position on, each with the position that it compensates; a run's first is due at once."""
    steps = [
        {
            "run_id": run.id,
            "position": first + number,
            "name": name,
            "state": StepState.QUEUED if number else StepState.PENDING,
            "attempt": 0,
            "budget_start": 0,
            "answers_from": 0,
            "idempotency_key": uuid7(),
            "compensates": compensates,
        }
        for run, first, names in wanted
        for number, (name, compensates) in enumerate(names)
    ]
    await session.execute(insert(SagaStepRow), steps)
    await wake_workers(session)


async def lock_run(session: AsyncSession, subject_id: UUID, run_id: UUID) -> Run:
    """The run of this tenant or clock, locked, after whatever worker holds it is done. Raises `NotFound`.

    Who locks the tenant too does so afterwards: a worker has the run when it comes to the tenant.
    """
    mine = (SagaRunRow.id == run_id, SagaRunRow.subject_id == subject_id)
    held = select(SagaRunRow).where(*mine).with_for_update().execution_options(populate_existing=True)
    row = (await session.execute(held)).scalar_one_or_none()
    if row is None:
        raise NotFound
    steps = select(SagaStepRow).where(SagaStepRow.run_id == run_id).order_by(SagaStepRow.position).with_for_update()
    return Run(row, (await session.scalars(steps.execution_options(populate_existing=True))).all())


async def steps_after(session: AsyncSession, steps: Collection[SagaStepRow]) -> Mapping[UUID, SagaStepRow]:
    """By run, the step after each of these, where there is one: one statement."""
    wanted = [(step.run_id, step.position + 1) for step in steps]
    rows = await session.scalars(
        select(SagaStepRow).where(tuple_(SagaStepRow.run_id, SagaStepRow.position).in_(wanted))
    )
    return {row.run_id: row for row in rows}


async def list_runs(session: AsyncSession, subject_id: UUID, *, before: UUID | None, limit: int) -> Sequence[Run]:
    """At most `limit` runs, the newest first, with their steps and answers: three statements."""
    conditions = [SagaRunRow.subject_id == subject_id]
    if before is not None:
        conditions.append(SagaRunRow.id < before)
    return await _runs(session, select(SagaRunRow).where(*conditions), limit)


async def list_troubled_runs(session: AsyncSession, subject_id: UUID, limit: int) -> Sequence[Run]:
    """At most `limit` runs that are not over, or that a service has not answered well, the newest first."""
    request, answered = aliased(SagaRequestRow), aliased(SagaRequestRow)
    done = (
        select(answered.run_id)
        .where(
            answered.run_id == request.run_id,
            answered.service == request.service,
            answered.outcome == AckOutcome.DONE,
        )
        .exists()
    )
    unanswered = select(request.run_id).where(request.run_id == SagaRunRow.id, ~done).exists()
    troubled = select(SagaRunRow).where(
        SagaRunRow.subject_id == subject_id,
        or_(SagaRunRow.state.in_(OPEN), (SagaRunRow.state == RunState.SUCCEEDED) & unanswered),
    )
    return await _runs(session, troubled, limit)


async def _runs(session: AsyncSession, wanted: Select[SagaRunRow], limit: int) -> Sequence[Run]:
    rows = (await session.scalars(wanted.order_by(SagaRunRow.id.desc()).limit(limit))).all()
    if not rows:
        return []
    ids = [row.id for row in rows]
    steps: defaultdict[UUID, list[SagaStepRow]] = defaultdict(list)
    for step in await session.scalars(
        select(SagaStepRow).where(SagaStepRow.run_id.in_(ids)).order_by(SagaStepRow.position)
    ):
        steps[step.run_id].append(step)
    answers = await answers_where(session, SagaRequestRow.run_id.in_(ids))
    return [
        Run(row, steps[row.id], {step.position: answers[row.id, step.position] for step in steps[row.id]})
        for row in rows
    ]


async def latest_state(session: AsyncSession, subject_id: UUID) -> RunState | None:
    """The state of the newest run of this tenant or clock, or None where there is none."""
    newest = select(SagaRunRow.state).where(SagaRunRow.subject_id == subject_id).order_by(SagaRunRow.id.desc()).limit(1)
    return (await session.execute(newest)).scalar_one_or_none()
