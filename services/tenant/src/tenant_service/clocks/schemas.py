"""What comes in over HTTP and what goes out."""

from datetime import datetime
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from tenant_service.clocks.service import ClockStatus, TestClock


class ClockCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    now: AwareDatetime


class ClockAdvance(BaseModel):
    model_config = ConfigDict(extra="forbid")

    to: AwareDatetime


class ClockOut(BaseModel):
    id: UUID
    now: datetime
    status: ClockStatus
    version: int
    created_at: datetime

    @classmethod
    def of(cls, clock: TestClock) -> "ClockOut":
        return cls(id=clock.id, now=clock.now, status=clock.status, version=clock.version, created_at=clock.created_at)
