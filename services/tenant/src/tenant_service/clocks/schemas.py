"""What comes in over HTTP and what goes out."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from tenant_service.clocks.service import ClockStatus, TestClock
from tenant_service.instants import Instant


class ClockCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    now: Instant


class ClockAdvance(BaseModel):
    model_config = ConfigDict(extra="forbid")

    to: Instant


class ClockOut(BaseModel):
    id: UUID
    now: datetime
    status: ClockStatus
    version: int
    created_at: datetime

    @classmethod
    def of(cls, clock: TestClock) -> "ClockOut":
        return cls(id=clock.id, now=clock.now, status=clock.status, version=clock.version, created_at=clock.created_at)
