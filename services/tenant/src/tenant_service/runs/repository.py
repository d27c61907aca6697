"""SQL of runs, steps and the requests that steps make."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    bindparam,
    insert,
    inspect,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
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
from tenantry import NotFound, current_traceparent, uuid7
from tenantry.events import encode_data

WAKE_CHANNEL = "tenant_saga"
# Among a run's data: where in a trace it was asked for, so that what its steps cause is part of that trace.
TRACEPARENT = "traceparent"
# One place in four.
NEWEST_SHARE = 4

_STORE_ANSWERS = text(
    """
    UPDATE system.saga_request AS request
    SET outcome = given.outcome, error_code = given.error_code, error_detail = given.error_detail,
        retryable = given.retryable, result = CAST(given.result AS jsonb), answered_at = :now
    FROM unnest(CAST(:request_ids AS uuid[]), CAST(:services AS text[]), CAST(:outcomes AS text[]),
                CAST(:error_codes AS text[]), CAST(:error_details AS text[]), CAST(:retryables AS boolean[]),
                CAST(:results AS text[]))
        AS given (request_id, service, outcome, error_code, error_detail, retryable, result)
    WHERE request.request_id = given.request_id AND request.service = given.service AND request.outcome IS NULL
    RETURNING request.run_id, request.position
    """
)

# Sorted, so that two consumers lock steps in one order.
_WAKE_STEPS = text(
    """
    WITH waiting AS (
        SELECT run_id, position FROM system.saga_step
        WHERE (run_id, position) IN (SELECT * FROM unnest(CAST(:run_ids AS uuid[]), CAST(:positions AS integer[])))
          AND state = 'waiting'
        ORDER BY run_id, position
        FOR UPDATE
    )
    UPDATE system.saga_step AS step SET next_retry_at = NULL
    FROM waiting WHERE step.run_id = waiting.run_id AND step.position = waiting.position
    """
)

_WAKE = text("SELECT pg_notify(:channel, '')").bindparams(channel=WAKE_CHANNEL)

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
# Literal in the statement, so that every plan of it can use the partial index ix_saga_step_due.
_DUE: BindParameter[list[StepState]] = bindparam(
    "due", [StepState.PENDING, StepState.WAITING], expanding=True, literal_execute=True
)


# The states of runs whose steps are carried forward.
_GOING = (RunState.RUNNING, RunState.COMPENSATING)


@dataclass(frozen=True, slots=True)
class Run:
    """A run with its steps in order, and by step what was asked of services and what they said."""

    row: SagaRunRow
    steps: Sequence[SagaStepRow]
    answers: Mapping[int, Sequence[Answer]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A step that is due, and its run, both locked."""

    run: SagaRunRow
    step: SagaStepRow


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be added; `subject_id` is the tenant or the test clock that it is about."""

    kind: RunKind
    subject_id: UUID
    tenant_id: UUID | None
    requested_by: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewRequest:
    """What a step asks of services."""

    request_id: UUID
    step: SagaStepRow
    services: Sequence[str]


@dataclass(frozen=True, slots=True)
class Ack:
    """A service's answer as it came in."""

    request_id: UUID
    service: str
    outcome: AckOutcome
    error_code: str | None
    detail: str | None
    result: Mapping[str, Any] | None
    retryable: bool = False


def progress_of(step: SagaStepRow) -> Progress:
    return Progress(step.position, step.name, step.state, step.attempt)


async def wake_workers(session: AsyncSession | AsyncConnection) -> None:
    """Tell every worker, once this transaction commits, that a step is due."""
    await session.execute(_WAKE)


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


async def claim_due_steps(session: AsyncSession, now: datetime, limit: int) -> Sequence[Claimed]:
    """Lock at most `limit` steps that are due, with their runs. What another worker or an operator holds is skipped.

    The oldest come first; where there are more than fit, a share of the places is for the newest, so that somebody who
    has just signed up does not wait behind a thousand that were imported. Both rows are locked by one statement that
    never waits, so a worker cannot deadlock with `lock_run`.
    """
    statement = (
        select(SagaRunRow, SagaStepRow)
        .join(SagaStepRow, SagaStepRow.run_id == SagaRunRow.id)
        .where(
            SagaStepRow.state.in_(_DUE),
            or_(SagaStepRow.next_retry_at.is_(None), SagaStepRow.next_retry_at <= now),
            SagaRunRow.state.in_(_GOING),
        )
        .with_for_update(skip_locked=True)
    )
    for_newest = limit // NEWEST_SHARE
    oldest = statement.order_by(SagaStepRow.next_retry_at.nulls_first(), SagaStepRow.run_id).limit(limit - for_newest)
    claimed = [Claimed(run, step) for run, step in await session.execute(oldest)]
    if for_newest and len(claimed) == limit - for_newest:
        # Rows that this transaction has locked itself are not skipped.
        behind = (SagaStepRow.next_retry_at.is_(None), SagaStepRow.run_id > max(one.run.id for one in claimed))
        newest = statement.where(*behind).order_by(SagaStepRow.run_id.desc()).limit(for_newest)
        claimed += [Claimed(run, step) for run, step in await session.execute(newest)]
    return claimed


async def reload(session: AsyncSession, claimed: Sequence[Claimed]) -> None:
    """Read claimed rows again after a rollback to a savepoint has expired them: two statements."""
    keys = [inspect(one.step).identity for one in claimed]
    steps = select(SagaStepRow).where(tuple_(SagaStepRow.run_id, SagaStepRow.position).in_(keys))
    runs = select(SagaRunRow).where(SagaRunRow.id.in_([key[0] for key in keys if key is not None]))
    await session.execute(steps.execution_options(populate_existing=True))
    await session.execute(runs.execution_options(populate_existing=True))


async def lock_run(session: AsyncSession, subject_id: UUID, run_id: UUID) -> Run:
    """The run of this tenant or clock, locked, after whatever worker holds it is done. Raises `NotFound`."""
    mine = (SagaRunRow.id == run_id, SagaRunRow.subject_id == subject_id)
    row = (await session.execute(select(SagaRunRow).where(*mine).with_for_update())).scalar_one_or_none()
    if row is None:
        raise NotFound
    steps = select(SagaStepRow).where(SagaStepRow.run_id == run_id).order_by(SagaStepRow.position).with_for_update()
    return Run(row, (await session.scalars(steps)).all())


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
    answers = await _answers(session, SagaRequestRow.run_id.in_(ids))
    return [
        Run(row, steps[row.id], {step.position: answers[row.id, step.position] for step in steps[row.id]})
        for row in rows
    ]


async def latest_state(session: AsyncSession, subject_id: UUID) -> RunState | None:
    """The state of the newest run of this tenant or clock, or None where there is none."""
    newest = select(SagaRunRow.state).where(SagaRunRow.subject_id == subject_id).order_by(SagaRunRow.id.desc()).limit(1)
    return (await session.execute(newest)).scalar_one_or_none()


async def add_requests(session: AsyncSession, requests: Sequence[NewRequest], now: datetime) -> Mapping[UUID, int]:
    """Remember what these attempts ask of which services: one statement. Returns the number of each request.

    Numbers rise from request to request of a run, because the run is locked.
    """
    rows = [
        {
            "request_id": request.request_id,
            "service": service,
            "run_id": request.step.run_id,
            "position": request.step.position,
            "attempt": request.step.attempt,
            "requested_at": now,
        }
        for request in requests
        for service in request.services
    ]
    statement = insert(SagaRequestRow).returning(SagaRequestRow.request_id, SagaRequestRow.number)
    return {row.request_id: row.number for row in await session.execute(statement, rows)}


async def answers_to(
    session: AsyncSession, steps: Collection[SagaStepRow]
) -> Mapping[tuple[UUID, int], Sequence[Answer]]:
    """By step, every request that its attempts have made, with its answer where there is one: one statement.

    What was asked before an operator had the step done again does not count.
    """
    keys = [(step.run_id, step.position) for step in steps]
    answers = await _answers(session, tuple_(SagaRequestRow.run_id, SagaRequestRow.position).in_(keys))
    return {
        (step.run_id, step.position): [
            answer for answer in answers[step.run_id, step.position] if answer.attempt >= step.answers_from
        ]
        for step in steps
    }


async def asked_services(session: AsyncSession, positions: Mapping[UUID, int]) -> Mapping[UUID, Sequence[str]]:
    """By run, the services that the step at this position has ever asked: one statement."""
    asked: defaultdict[UUID, list[str]] = defaultdict(list)
    statement = (
        select(SagaRequestRow.run_id, SagaRequestRow.service)
        .where(tuple_(SagaRequestRow.run_id, SagaRequestRow.position).in_(list(positions.items())))
        .distinct()
        .order_by(SagaRequestRow.run_id, SagaRequestRow.service)
    )
    for run_id, service in await session.execute(statement):
        asked[run_id].append(service)
    return asked


async def _answers(session: AsyncSession, wanted: ColumnElement[bool]) -> defaultdict[tuple[UUID, int], list[Answer]]:
    answers: defaultdict[tuple[UUID, int], list[Answer]] = defaultdict(list)
    for row in await session.scalars(select(SagaRequestRow).where(wanted).order_by(SagaRequestRow.number)):
        answers[row.run_id, row.position].append(
            Answer(
                service=row.service,
                attempt=row.attempt,
                outcome=row.outcome,
                error_code=row.error_code,
                detail=row.error_detail,
                retryable=row.retryable,
            )
        )
    return answers


async def store_acks(connection: AsyncConnection, acks: Sequence[Ack], now: datetime) -> int:
    """Write answers to their requests and make the steps that wait for them due: three statements for any number.

    An answer to a request that nobody made, or that has one already, changes nothing. Returns how many were new.
    """
    given = {
        "request_ids": [ack.request_id for ack in acks],
        "services": [ack.service for ack in acks],
        "outcomes": [ack.outcome.value for ack in acks],
        "error_codes": [ack.error_code for ack in acks],
        "error_details": [ack.detail for ack in acks],
        "retryables": [ack.retryable for ack in acks],
        "results": [None if ack.result is None else json.dumps(ack.result) for ack in acks],
    }
    answered = (await connection.execute(_STORE_ANSWERS, given | {"now": now})).all()
    if answered:
        steps = {"run_ids": [row.run_id for row in answered], "positions": [row.position for row in answered]}
        await connection.execute(_WAKE_STEPS, steps)
        await wake_workers(connection)
    return len(answered)
