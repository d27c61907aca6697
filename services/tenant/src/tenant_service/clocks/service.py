"""Use cases of test clocks. The caller opens the transaction and commits it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.clocks.repository import find_clock
from tenant_service.domain.saga import RunKind, RunState
from tenant_service.models import TestClockRow
from tenant_service.publication import publish_tenants
from tenant_service.runs.repository import add_run, latest_state
from tenant_service.tenants.document import document
from tenant_service.tenants.repository import raise_versions_of_clock
from tenantry import Conflict, InvalidRequest, TenantClock, uuid7


class ClockStatus(StrEnum):
    """`advancing` until every service has said that it has done what the new time asks of it."""

    READY = "ready"
    ADVANCING = "advancing"


class ClockRunsBackwards(InvalidRequest):
    """Time never goes back: what was billed cannot be unbilled by a clock."""

    type = "clock-backwards"
    title = "A test clock only moves forward"


class ClockAdvancing(Conflict):
    """The services have not yet caught up with the last advance."""

    type = "clock-advancing"
    title = "The test clock is still advancing"


@dataclass(frozen=True, slots=True)
class TestClock:
    """A clock and whether the services have caught up with it."""

    __test__ = False

    id: UUID
    now: datetime
    status: ClockStatus
    version: int
    created_at: datetime


async def create_clock(session: AsyncSession, start: datetime, *, actor: Actor, now: datetime) -> TestClock:
    """A clock that shows `start`."""
    row = TestClockRow(id=uuid7(), now=start, version=1, created_at=now)
    session.add(row)
    await session.flush()
    detail = {"now": start.isoformat()}
    await audit.record(session, actor, "test_clock.create", target=str(row.id), now=now, detail=detail)
    return _clock(row, ClockStatus.READY)


async def get_clock(session: AsyncSession, clock_id: UUID) -> TestClock:
    """The clock. Raises `NotFound`."""
    return _clock(await find_clock(session, clock_id), await _status(session, clock_id))


async def advance_clock(
    session: AsyncSession, clock_id: UUID, to: datetime, *, actor: Actor, now: datetime
) -> TestClock:
    """Move the clock to `to`, and with it every tenant that is bound to it, and ask the services to catch up.

    The time that the clock already shows changes nothing, so a repeated request is harmless.
    Raises `NotFound`, `ClockRunsBackwards`, `ClockAdvancing`.
    """
    row = await find_clock(session, clock_id, lock=True)
    if to < row.now:
        detail = f"The clock already shows {row.now.isoformat()}"
        raise ClockRunsBackwards(detail, errors=[{"loc": ["body", "to"], "msg": detail}])
    status = await _status(session, clock_id)
    if to == row.now:
        return _clock(row, status)
    if status is ClockStatus.ADVANCING:
        raise ClockAdvancing("Wait until its status is ready, or cancel the run that it waits for")
    before, row.now = row.now, to
    row.version += 1
    await session.flush()
    clock = TenantClock(id=row.id, now=row.now)
    tenants = await raise_versions_of_clock(session, clock_id)
    await publish_tenants(session, [document(tenant, clock) for tenant in tenants])
    data = {"clock_id": str(clock_id), "from": before.isoformat(), "to": to.isoformat(), "version": row.version}
    await add_run(
        session,
        RunKind.CLOCK_ADVANCE,
        subject_id=clock_id,
        tenant_id=None,
        requested_by=actor.subject,
        now=now,
        data=data,
    )
    await audit.record(session, actor, "test_clock.advance", target=str(clock_id), now=now, detail=data)
    return _clock(row, ClockStatus.ADVANCING)


async def _status(session: AsyncSession, clock_id: UUID) -> ClockStatus:
    state = await latest_state(session, clock_id)
    settled = {None, RunState.SUCCEEDED, RunState.CANCELLED}
    return ClockStatus.READY if state in settled else ClockStatus.ADVANCING


def _clock(row: TestClockRow, status: ClockStatus) -> TestClock:
    return TestClock(row.id, row.now, status, row.version, row.created_at)
