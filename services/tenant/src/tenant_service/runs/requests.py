"""SQL of what steps ask of services and of what those answer."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, insert, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenant_service.domain.saga import AckOutcome, Answer
from tenant_service.models import SagaRequestRow, SagaStepRow
from tenant_service.runs.due_steps import wake_workers

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
    answers = await answers_where(session, tuple_(SagaRequestRow.run_id, SagaRequestRow.position).in_(keys))
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


async def answers_where(
    session: AsyncSession, wanted: ColumnElement[bool]
) -> defaultdict[tuple[UUID, int], list[Answer]]:
    """By run and position, the requests that `wanted` selects, in their order; none for a step that asked nothing."""
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
