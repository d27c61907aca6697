"""GET /v1/retention: what would be archived, dropped and deleted by an instant, without doing it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from tenantry.events import load_topics
from tenantry.http import require_scope
from tenantry.identity import Scope
from usage_service.archive.manifest import expired_objects
from usage_service.dead_letters.api import Moment
from usage_service.dependencies import SystemTransaction
from usage_service.retention.days import known_days
from usage_service.retention.letters import count_old_letters
from usage_service.retention.policy import Step, Terms, next_step
from usage_service.retention.rollups import Ending, due_days

router = APIRouter(prefix="/v1/retention", tags=["retention"], dependencies=[Depends(require_scope(Scope.PLATFORM))])

_OBJECTS = 1_000


class DueDay(BaseModel):
    """A day with something to be done; `problem` is what stood in the way the last time."""

    day: date
    step: Step
    due: datetime
    problem: str | None


class ExpiredObject(BaseModel):
    id: UUID
    day: date
    rows: int
    path: str


class StayOut(BaseModel):
    """How long what stays; without `days`, until the tenant is purged or the person erased."""

    what: str
    days: int | None
    then: str


class RetentionOut(BaseModel):
    """What is due at an instant if nothing comes in before it.

    A day that has not been archived is dropped after its term too, once it has been; of the objects at most a thousand
    are listed.
    """

    at: datetime
    stays: list[StayOut]
    days: list[DueDay]
    archive_objects: list[ExpiredObject]
    dead_letters: int
    rollup_hours: list[date] = Field(description="Days whose hours become one row; at most a thousand.")
    rollup_days: list[date] = Field(description="Days whose rollups are deleted; at most a thousand.")


def _terms(request: Request) -> Terms:
    terms: Terms = request.app.state.terms
    return terms


@router.get("")
async def get(
    session: SystemTransaction,
    terms: Annotated[Terms, Depends(_terms)],
    at: Annotated[Moment | None, Query(description="Now without one.")] = None,
) -> RetentionOut:
    """What would be archived, dropped and deleted by then, by the rules that the relay works by."""
    until = at or datetime.now(UTC)
    connection = await session.connection()
    due = [(known, *next_step(known.state, terms)) for known in await known_days(connection)]
    expired = await expired_objects(connection, until - terms.archive, limit=_OBJECTS)
    return RetentionOut(
        at=until,
        stays=_stays(terms),
        days=[
            DueDay(day=known.state.day, step=step, due=when, problem=known.problem)
            for known, step, when in sorted(due, key=lambda each: each[0].state.day)
            if when <= until
        ],
        archive_objects=[
            ExpiredObject(id=each.id, day=each.day, rows=each.totals.rows, path=each.path) for each in expired
        ],
        dead_letters=await count_old_letters(connection, until - terms.dead_letters),
        rollup_hours=await due_days(connection, Ending.HOURS, until - terms.hours, limit=_OBJECTS),
        rollup_days=await due_days(connection, Ending.DAYS, until - terms.days, limit=_OBJECTS),
    )


def _stays(terms: Terms) -> list[StayOut]:
    topics = [each for each in load_topics() if each.name.startswith("usage.")]
    return [
        StayOut(what="raw events and identities in PostgreSQL", days=terms.stored.days, then="archived"),
        StayOut(what="raw events in the archive", days=terms.archive.days, then="deleted"),
        StayOut(what="rollups of hours", days=terms.hours.days, then="become rollups of whole days"),
        StayOut(what="rollups of whole days", days=terms.days.days, then="deleted"),
        StayOut(what="dead letters", days=terms.dead_letters.days, then="deleted"),
        StayOut(what="tokens and who has read them, corrections, reports of erasures", days=None, then="deleted"),
        *(StayOut(what=f"topic {each.name}", days=each.retention_days, then=each.cleanup) for each in topics),
    ]
