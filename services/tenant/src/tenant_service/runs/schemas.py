"""What comes in over HTTP and what goes out."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from tenant_service.domain.saga import (
    Answer,
    RunKind,
    RunState,
    ServiceState,
    StepName,
    StepState,
    service_states,
)
from tenant_service.models import SagaStepRow
from tenant_service.runs.repository import Run, progress_of


class RunRetry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    from_step: StepName | None = Field(None, description="Left out: the step that failed.")


class StepError(BaseModel):
    code: str
    detail: str


class StepService(BaseModel):
    """A service that the step has asked; `error` is its last one."""

    name: str
    state: ServiceState
    error: StepError | None


class StepOut(BaseModel):
    """A step; `compensates` names the step that it undoes, `compensation` says how far its own undoing is."""

    name: StepName
    state: StepState
    attempt: int
    error: StepError | None
    next_retry_at: datetime | None
    services: list[StepService]
    compensates: StepName | None
    compensation: StepState | None
    started_at: datetime | None
    ended_at: datetime | None


class RunOut(BaseModel):
    """A run; `degraded` names the services that have not done their part although they had their time."""

    id: UUID
    kind: RunKind
    state: RunState
    steps: list[StepOut]
    degraded: list[str]
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, run: Run) -> "RunOut":
        steps = [_step(run, step) for step in run.steps]
        degraded = {
            service.name for step in steps for service in step.services if service.state is ServiceState.DEGRADED
        }
        row = run.row
        return cls(
            id=row.id,
            kind=row.kind,
            state=row.state,
            steps=steps,
            degraded=sorted(degraded),
            created_at=row.created_at,
            ended_at=row.ended_at,
        )


def _step(run: Run, step: SagaStepRow) -> StepOut:
    answers = run.answers.get(step.position, ())
    states = service_states(progress_of(step), answers)
    return StepOut(
        name=step.name,
        state=step.state,
        attempt=step.attempt,
        error=_error(step.error_code, step.error_detail),
        next_retry_at=step.next_retry_at,
        services=[
            StepService(
                name=service, state=state, error=None if state is ServiceState.DONE else _last_error(service, answers)
            )
            for service, state in sorted(states.items())
        ],
        compensates=None if step.compensates is None else run.steps[step.compensates].name,
        compensation=next((undo.state for undo in run.steps if undo.compensates == step.position), None),
        started_at=step.started_at,
        ended_at=step.ended_at,
    )


def _last_error(service: str, answers: Sequence[Answer]) -> StepError | None:
    errors = [_error(each.error_code, each.detail) for each in answers if each.service == service and each.error_code]
    return errors[-1] if errors else None


def _error(code: str | None, detail: str | None) -> StepError | None:
    return None if code is None else StepError(code=code, detail=detail or code)
