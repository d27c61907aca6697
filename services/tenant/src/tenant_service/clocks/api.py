"""Routes of test clocks; they exist only where test clocks are enabled."""

from uuid import UUID

from fastapi import APIRouter, Response

from tenant_service.clocks import service
from tenant_service.clocks.schemas import ClockAdvance, ClockCreate, ClockOut
from tenant_service.clocks.service import TestClock
from tenant_service.dependencies import CurrentActor, Idempotent, Now, Platform, Transaction
from tenantry.http import IdempotentRoute, etag

router = APIRouter(prefix="/v1/test-clocks", tags=["test clocks"], dependencies=[Platform], route_class=IdempotentRoute)


def _shown(clock: TestClock, response: Response) -> ClockOut:
    response.headers["ETag"] = etag(clock.version)
    return ClockOut.of(clock)


@router.post("", status_code=201, dependencies=[Idempotent])
async def create_clock(
    body: ClockCreate, response: Response, session: Transaction, actor: CurrentActor, now: Now
) -> ClockOut:
    """A clock that shows `now`; tenants are bound to it when they are created."""
    clock = await service.create_clock(session, body.now, actor=actor, now=now)
    response.headers["Location"] = f"/v1/test-clocks/{clock.id}"
    return _shown(clock, response)


@router.get("/{clock_id}")
async def get_clock(clock_id: UUID, response: Response, session: Transaction) -> ClockOut:
    """The clock; its status is `advancing` until every service has caught up."""
    return _shown(await service.get_clock(session, clock_id), response)


@router.post("/{clock_id}/advance", status_code=202, dependencies=[Idempotent])
async def advance_clock(
    clock_id: UUID, body: ClockAdvance, response: Response, session: Transaction, actor: CurrentActor, now: Now
) -> ClockOut:
    """Move the clock forward, and every tenant that is bound to it."""
    return _shown(await service.advance_clock(session, clock_id, body.to, actor=actor, now=now), response)
