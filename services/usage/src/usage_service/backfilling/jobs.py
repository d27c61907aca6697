"""Rows of `system.meter_backfill`: what is to be counted for a meter, and how far that is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from usage_service.domain.instants import microseconds

# The first backfill of a type takes everything that it counts off the list of unmatched events; one that reaches back
# farther takes off what the others left. No meter is ever deleted: what was unmatched was stored before the first
# meter of its type, so that every meter of the type can count it.
_ADD = text(
    """
    INSERT INTO system.meter_backfill
           (meter_id, first_time, last_time, unmatched_until, unmatched_before, state, reached, after_tenant, hours,
            days_done, events, created_at)
    SELECT CAST(:meter AS uuid), :first, CAST(:last AS timestamptz), COALESCE(min(backfill_from), :end), min(since),
           'waiting', CAST(:last AS timestamptz), CAST(:nil AS uuid), 0, 0, 0, clock_timestamp()
      FROM system.meter WHERE event_type = :type
    """
)
_SET_FROM = text("UPDATE system.meter SET backfill_from = :first WHERE id = :meter")
_INCOMPLETE = text(
    """
    UPDATE system.meter SET incomplete_until = (
           SELECT max(reached) FROM system.meter_backfill WHERE meter_id = meter.id AND state <> 'finished')
     WHERE id = :meter
    """
)
_PROGRESS = text(
    """
    SELECT meter.slug, min(job.first_time) AS first_time,
           CASE WHEN bool_and(job.state = 'finished') THEN 'finished'
                WHEN bool_and(job.state IN ('waiting', 'finished')) THEN 'waiting' ELSE 'running' END AS state,
           CASE WHEN bool_and(job.days IS NOT NULL) THEN sum(job.days)::bigint END AS days,
           sum(job.days_done)::bigint AS days_done, sum(job.events)::bigint AS events,
           CASE WHEN bool_and(job.state = 'finished') THEN max(job.finished_at) END AS finished_at
      FROM system.meter AS meter JOIN system.meter_backfill AS job ON job.meter_id = meter.id
     WHERE meter.slug = ANY(CAST(:slugs AS text[])) GROUP BY 1
    """
)
_UNFINISHED = text(
    "SELECT meter_id, first_time FROM system.meter_backfill WHERE state <> 'finished' ORDER BY created_at, first_time"
)
_CLAIM = text(
    """
    SELECT * FROM system.meter_backfill
     WHERE meter_id = :meter AND first_time = :first AND state <> 'finished' FOR UPDATE SKIP LOCKED
    """
)
# The days that PostgreSQL or the archive has, of those that the row is about.
_DAYS: Final = """
SELECT stored.day
  FROM system.meter_backfill AS job
 CROSS JOIN (SELECT to_date(right(child.relname, 8), 'YYYYMMDD') AS day
               FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
              WHERE inhparent = 'pool.usage_event'::regclass
              UNION SELECT day FROM system.archive_object WHERE released_at IS NOT NULL) AS stored
 WHERE job.meter_id = :meter AND job.first_time = :first
   AND (stored.day + 1)::timestamp AT TIME ZONE 'UTC' > job.first_time
   AND stored.day::timestamp AT TIME ZONE 'UTC' < job.last_time
"""
_BEGIN = text(
    f"""
    UPDATE system.meter_backfill
       SET state = 'running', days = (SELECT count(*) FROM ({_DAYS}) AS wanted),
           day = (SELECT max(day) FROM ({_DAYS}) AS wanted)
     WHERE meter_id = :meter AND first_time = :first
    """  # noqa: S608 (statements of our own)
)
_GO_ON = text(
    """
    UPDATE system.meter_backfill SET after_tenant = :after, hours = :hours, events = events + :events
     WHERE meter_id = :meter AND first_time = :first
    """
)
_NEXT_DAY = text(
    f"""
    UPDATE system.meter_backfill AS done
       SET days_done = days_done + 1, days = GREATEST(days, days_done + 1),
           reached = GREATEST(first_time, done.day::timestamp AT TIME ZONE 'UTC'),
           day = (SELECT max(day) FROM ({_DAYS}) AS wanted WHERE day < done.day),
           after_tenant = CAST(:nil AS uuid), hours = 0
     WHERE meter_id = :meter AND first_time = :first
    """  # noqa: S608 (statements of our own)
)
_ENTER = text(
    """
    UPDATE system.meter_backfill
       SET state = :state, reached = first_time,
           finished_at = CASE WHEN :finished THEN clock_timestamp() END
     WHERE meter_id = :meter AND first_time = :first
    """
)

_NIL: Final = UUID(int=0)
_END: Final = datetime(2200, 1, 1, tzinfo=UTC)  # no question reaches farther (`domain.windows`)


class State(StrEnum):
    """Of a backfill: it waits for batches that do not know the meter, counts, settles full windows, and is finished."""

    WAITING = "waiting"
    RUNNING = "running"
    SETTLING = "settling"
    FINISHED = "finished"


class JobKey(NamedTuple):
    """Which row: of a meter's first version, and from when on."""

    meter: UUID
    first: datetime


@dataclass(frozen=True, slots=True)
class Job:
    """An unfinished row, locked. Times are microseconds; without a `day` there is no day left.

    Of the day, tenants up to `after_tenant` are done, and where there are `hours`, those of the id that comes next.
    """

    key: JobKey
    state: State
    first: int
    last: int
    unmatched_until: int
    unmatched_before: int
    day: date | None
    after_tenant: UUID
    hours: int

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        return cls(
            key=JobKey(row.meter_id, row.first_time),
            state=State(row.state),
            first=microseconds(row.first_time),
            last=microseconds(row.last_time),
            unmatched_until=microseconds(row.unmatched_until),
            unmatched_before=row.unmatched_before,
            day=row.day,
            after_tenant=row.after_tenant,
            hours=row.hours,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the backfill of a meter is. The days are known once it runs."""

    first: datetime
    state: str
    days: int | None
    days_done: int
    events: int
    finished_at: datetime | None


async def add_job(
    session: AsyncSession, meter_id: UUID, event_type: str, first: datetime, last: datetime | None
) -> None:
    """Has a meter count what was stored before it from `first` on, up to `last`, where it counts already.

    The caller holds the lock of the catalogue, and commits.
    """
    values = {"meter": meter_id, "type": event_type, "first": first, "last": last or _END, "end": _END, "nil": _NIL}
    await session.execute(_ADD, values)
    await session.execute(_SET_FROM, {"meter": meter_id, "first": first})
    await session.execute(_INCOMPLETE, {"meter": meter_id})


async def progress_of(session: AsyncSession, slugs: Collection[str]) -> dict[str, Progress]:
    """By slug, of those meters that have a backfill."""
    return {
        row.slug: Progress(row.first_time, row.state, row.days, row.days_done, row.events, row.finished_at)
        for row in await session.execute(_PROGRESS, {"slugs": list(slugs)})
    }


async def unfinished_jobs(connection: AsyncConnection) -> list[JobKey]:
    """All rows with something left to do, oldest first."""
    return [JobKey(*row) for row in await connection.execute(_UNFINISHED)]


async def claim_job(connection: AsyncConnection, key: JobKey) -> Job | None:
    """The row, locked until the caller's transaction ends; None where another has it, or it is finished."""
    row = (await connection.execute(_CLAIM, key._asdict())).one_or_none()
    return None if row is None else Job.of(row)


async def begin_job(connection: AsyncConnection, job: Job) -> None:
    """Every batch that does not know the meter has ended: begins with the last day."""
    await connection.execute(_BEGIN, job.key._asdict())


async def go_on(connection: AsyncConnection, job: Job, after_tenant: UUID, hours: int, *, events: int) -> None:
    """Notes what is done of the day, and how many events were counted."""
    await connection.execute(_GO_ON, {**job.key._asdict(), "after": after_tenant, "hours": hours, "events": events})


async def finish_day(connection: AsyncConnection, job: Job) -> None:
    """Goes to the day before, where there is one."""
    await connection.execute(_NEXT_DAY, {**job.key._asdict(), "nil": _NIL})
    await connection.execute(_INCOMPLETE, {"meter": job.key.meter})


async def enter(connection: AsyncConnection, job: Job, state: State) -> None:
    """All days are done: settles, or ends."""
    await connection.execute(_ENTER, {**job.key._asdict(), "state": state.value, "finished": state is State.FINISHED})
    await connection.execute(_INCOMPLETE, {"meter": job.key.meter})
