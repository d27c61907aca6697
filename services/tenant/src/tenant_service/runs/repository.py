"""SQL of runs, steps and the requests that steps make."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    bindparam,
    insert,
    or_,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenant_service.domain.saga import PLANS, AckOutcome, Answer, RunKind, RunState, StepState
from tenant_service.models import SagaRequestRow, SagaRunRow, SagaStepRow
from tenantry import NotFound, uuid7

WAKE_CHANNEL = "tenant_saga"

_STORE_ANSWERS = text(
    """
    UPDATE system.saga_request AS request
    SET outcome = given.outcome, error_code = given.error_code, error_detail = given.error_detail,
        result = CAST(given.result AS jsonb), answered_at = :now
    FROM unnest(CAST(:request_ids AS uuid[]), CAST(:services AS text[]), CAST(:outcomes AS text[]),
                CAST(:error_codes AS text[]), CAST(:error_details AS text[]), CAST(:results AS text[]))
        AS given (request_id, service, outcome, error_code, error_detail, result)
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
# Literal in the statement, so that every plan of it can use the partial index ix_saga_step_due.
_DUE: BindParameter[list[StepState]] = bindparam(
    "due", [StepState.PENDING, StepState.WAITING], expanding=True, literal_execute=True
)


@dataclass(frozen=True, slots=True)
class Run:
    """A run with its steps in order."""

    row: SagaRunRow
    steps: Sequence[SagaStepRow]


@dataclass(frozen=True, slots=True)
class Ack:
    """A service's answer as it came in."""

    request_id: UUID
    service: str
    outcome: AckOutcome
    error_code: str | None
    detail: str | None
    result: Mapping[str, Any] | None


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
    """Insert a run with the steps of its plan, the first of them due at once, and wake the workers."""
    run = SagaRunRow(
        id=uuid7(),
        kind=kind,
        subject_id=subject_id,
        tenant_id=tenant_id,
        state=RunState.RUNNING,
        data=dict(data or {}),
        requested_by=requested_by,
        created_at=now,
        ended_at=None,
    )
    session.add(run)
    await session.flush()
    steps = [
        {
            "run_id": run.id,
            "position": position,
            "name": name,
            "state": StepState.QUEUED if position else StepState.PENDING,
            "attempt": 0,
            "budget_start": 0,
            "idempotency_key": uuid7(),
        }
        for position, name in enumerate(PLANS[kind])
    ]
    await session.execute(insert(SagaStepRow), steps)
    await wake_workers(session)
    return run


async def claim_due_step(session: AsyncSession, now: datetime) -> tuple[SagaRunRow, SagaStepRow] | None:
    """Lock one step that is due and its run, or None. Rows that another worker or an operator holds are skipped.

    Both rows are locked by one statement that never waits, so a worker cannot deadlock with `lock_run`.
    """
    statement = (
        select(SagaRunRow, SagaStepRow)
        .join(SagaStepRow, SagaStepRow.run_id == SagaRunRow.id)
        .where(
            SagaStepRow.state.in_(_DUE),
            or_(SagaStepRow.next_retry_at.is_(None), SagaStepRow.next_retry_at <= now),
            SagaRunRow.state == RunState.RUNNING,
        )
        .order_by(SagaStepRow.next_retry_at.nulls_first(), SagaStepRow.run_id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    found = (await session.execute(statement)).one_or_none()
    return None if found is None else (found[0], found[1])


async def lock_run(session: AsyncSession, subject_id: UUID, run_id: UUID) -> Run:
    """The run of this tenant or clock, locked, after whatever worker holds it is done. Raises `NotFound`."""
    mine = (SagaRunRow.id == run_id, SagaRunRow.subject_id == subject_id)
    row = (await session.execute(select(SagaRunRow).where(*mine).with_for_update())).scalar_one_or_none()
    if row is None:
        raise NotFound
    steps = select(SagaStepRow).where(SagaStepRow.run_id == run_id).order_by(SagaStepRow.position).with_for_update()
    return Run(row, (await session.scalars(steps)).all())


async def next_step(session: AsyncSession, step: SagaStepRow) -> SagaStepRow | None:
    """The step after this one, or None."""
    return await session.get(SagaStepRow, (step.run_id, step.position + 1))


async def list_runs(session: AsyncSession, subject_id: UUID, *, before: UUID | None, limit: int) -> Sequence[Run]:
    """At most `limit` runs, the newest first, with their steps: two statements."""
    conditions = [SagaRunRow.subject_id == subject_id]
    if before is not None:
        conditions.append(SagaRunRow.id < before)
    rows = (
        await session.scalars(select(SagaRunRow).where(*conditions).order_by(SagaRunRow.id.desc()).limit(limit))
    ).all()
    if not rows:
        return []
    steps: defaultdict[UUID, list[SagaStepRow]] = defaultdict(list)
    of_runs = SagaStepRow.run_id.in_([row.id for row in rows])
    for step in await session.scalars(select(SagaStepRow).where(of_runs).order_by(SagaStepRow.position)):
        steps[step.run_id].append(step)
    return [Run(row, steps[row.id]) for row in rows]


async def latest_state(session: AsyncSession, subject_id: UUID) -> RunState | None:
    """The state of the newest run of this tenant or clock, or None where there is none."""
    newest = select(SagaRunRow.state).where(SagaRunRow.subject_id == subject_id).order_by(SagaRunRow.id.desc()).limit(1)
    return (await session.execute(newest)).scalar_one_or_none()


async def add_requests(
    session: AsyncSession, step: SagaStepRow, services: Sequence[str], request_id: UUID, now: datetime
) -> None:
    """Remember what this attempt asks of which services: one statement."""
    rows = [
        {
            "request_id": request_id,
            "service": service,
            "run_id": step.run_id,
            "position": step.position,
            "attempt": step.attempt,
            "requested_at": now,
        }
        for service in services
    ]
    await session.execute(insert(SagaRequestRow), rows)


async def answers_to(session: AsyncSession, step: SagaStepRow) -> Sequence[Answer]:
    """Every request that any attempt of the step has made, with its answer where there is one."""
    requests = select(SagaRequestRow).where(
        SagaRequestRow.run_id == step.run_id, SagaRequestRow.position == step.position
    )
    return [
        Answer(
            service=row.service,
            attempt=row.attempt,
            outcome=row.outcome,
            error_code=row.error_code,
            detail=row.error_detail,
        )
        for row in await session.scalars(requests)
    ]


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
        "results": [None if ack.result is None else json.dumps(ack.result) for ack in acks],
    }
    answered = (await connection.execute(_STORE_ANSWERS, given | {"now": now})).all()
    if answered:
        steps = {"run_ids": [row.run_id for row in answered], "positions": [row.position for row in answered]}
        await connection.execute(_WAKE_STEPS, steps)
        await wake_workers(connection)
    return len(answered)
