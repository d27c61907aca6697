"""What goes out over HTTP."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from tenant_service.domain.saga import RunKind, RunState, StepName, StepState
from tenant_service.runs.repository import Run


class StepError(BaseModel):
    code: str
    detail: str


class StepOut(BaseModel):
    name: StepName
    state: StepState
    attempt: int
    error: StepError | None
    next_retry_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


class RunOut(BaseModel):
    id: UUID
    kind: RunKind
    state: RunState
    steps: list[StepOut]
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, run: Run) -> "RunOut":
        steps = [
            StepOut(
                name=step.name,
                state=step.state,
                attempt=step.attempt,
                error=None
                if step.error_code is None
                else StepError(code=step.error_code, detail=step.error_detail or step.error_code),
                next_retry_at=step.next_retry_at,
                started_at=step.started_at,
                ended_at=step.ended_at,
            )
            for step in run.steps
        ]
        row = run.row
        return cls(
            id=row.id, kind=row.kind, state=row.state, steps=steps, created_at=row.created_at, ended_at=row.ended_at
        )
