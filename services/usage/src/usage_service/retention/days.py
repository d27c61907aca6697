"""The days that PostgreSQL has, whose turn it is, and the end of one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry.database import RoleNames
from usage_service.retention.policy import DayState

_ROLE: Final = f'SET ROLE "{RoleNames("usage").owner}"'
_DROP: Final = "SELECT system.drop_usage_day($1)"
STORED_DAYS: Final = """
    SELECT to_date(right(child.relname, 8), 'YYYYMMDD') AS day
      FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
     WHERE inhparent = 'pool.usage_event'::regclass
"""
_DISCOVER = text(
    f"""
    INSERT INTO system.usage_day (day, look_at)
    SELECT day, timezone('UTC', day + 1 + CAST(:after AS interval)) FROM ({STORED_DAYS}) AS stored
    ON CONFLICT DO NOTHING
    """  # noqa: S608 - a statement of our own
)
_CLAIM = text(
    f"""
    SELECT day, archived_at, newest_received_at, day IN ({STORED_DAYS}) AS stored
      FROM system.usage_day AS claimed
     WHERE look_at <= :now ORDER BY look_at, day LIMIT 1 FOR UPDATE OF claimed SKIP LOCKED
    """  # noqa: S608 - a statement of our own
)
_ARCHIVED = text(
    """
    UPDATE system.usage_day
       SET look_at = :look_at, archived_at = COALESCE(archived_at, :now), problem = NULL,
           newest_received_at = GREATEST(newest_received_at, CAST(:newest AS timestamptz))
     WHERE day = :day
    """
)
_DROPPED = text("UPDATE system.usage_day SET look_at = NULL, dropped_at = :now, problem = NULL WHERE day = :day")
_RELEASED = text(
    "UPDATE system.archive_object SET released_at = clock_timestamp() WHERE day = :day AND released_at IS NULL"
)
_LATER = text("UPDATE system.usage_day SET look_at = :look_at, problem = :problem WHERE day = :day")
_KNOWN = text(
    """
    SELECT day, look_at, archived_at, newest_received_at, problem FROM system.usage_day
     WHERE look_at IS NOT NULL ORDER BY look_at, day
    """
)
_LOCK = text("SELECT 1 FROM system.usage_day WHERE day = :day FOR UPDATE")
_OVERDUE = text("SELECT min(look_at) FROM system.usage_day WHERE look_at <= :now")


class DayBusy(Exception):
    """A batch is writing to the day, or reads hold it: the next try will do."""


@dataclass(frozen=True, slots=True)
class ClaimedDay:
    """A day whose turn it is, locked; it is not `stored` where it was dropped and the process killed then."""

    state: DayState
    stored: bool

    @property
    def day(self) -> date:
        """The day."""
        return self.state.day


@dataclass(frozen=True, slots=True)
class KnownDay:
    """A day with something to be done, and what stood in the way the last time."""

    state: DayState
    look_at: datetime
    problem: str | None


async def discover_days(connection: AsyncConnection, archive_after: timedelta) -> None:
    """Notes the days that have partitions and are not known yet. The caller commits; may be repeated."""
    await connection.execute(_DISCOVER, {"after": archive_after})


async def claim_day(connection: AsyncConnection, now: datetime) -> ClaimedDay | None:
    """The day that has waited longest, locked until the caller commits; None where none is due."""
    row = (await connection.execute(_CLAIM, {"now": now})).one_or_none()
    if row is None:
        return None
    return ClaimedDay(DayState(row.day, row.archived_at is not None, row.newest_received_at), row.stored)


async def lock_day(connection: AsyncConnection, day: date) -> None:
    """Waits for the right to write and delete a day's objects, which ends with the caller's transaction."""
    await connection.execute(_LOCK, {"day": day})


async def set_archived(
    connection: AsyncConnection, day: date, *, now: datetime, newest: datetime | None, look_at: datetime
) -> None:
    """The day was archived, whole or in part. The caller commits."""
    await connection.execute(_ARCHIVED, {"day": day, "now": now, "newest": newest, "look_at": look_at})


async def set_dropped(connection: AsyncConnection, day: date, now: datetime) -> None:
    """PostgreSQL has the day no longer, and the archive alone has its events. The caller commits; may be repeated."""
    await connection.execute(_RELEASED, {"day": day})
    await connection.execute(_DROPPED, {"day": day, "now": now})


async def look_later(connection: AsyncConnection, day: date, look_at: datetime, problem: str | None) -> None:
    """Lets other days go first. The caller commits."""
    await connection.execute(_LATER, {"day": day, "look_at": look_at, "problem": problem})


async def known_days(connection: AsyncConnection) -> list[KnownDay]:
    """The days that something is to be done with, those that are due first."""
    return [
        KnownDay(DayState(row.day, row.archived_at is not None, row.newest_received_at), row.look_at, row.problem)
        for row in await connection.execute(_KNOWN)
    ]


async def oldest_overdue(connection: AsyncConnection, now: datetime) -> datetime | None:
    """When the day was due that has waited longest."""
    overdue: datetime | None = await connection.scalar(_OVERDUE, {"now": now})
    return overdue


class ClosedDay:
    """A day that nobody can write to until the owner's transaction ends."""

    def __init__(self, connection: asyncpg.Connection, day: date) -> None:
        self._connection = connection
        self._day = day

    async def drop(self) -> None:
        """Drops the partition, and releases its objects; committed when the block of `closed_day` ends.

        Raises `DayBusy`.
        """
        try:
            await self._connection.execute(_DROP, self._day)
        except asyncpg.LockNotAvailableError as error:
            raise DayBusy(str(self._day)) from error


@asynccontextmanager
async def closed_day(migrator_url: str, day: date) -> AsyncIterator[ClosedDay]:
    """Closes a day to writers, by the owner's lock on its partition: readers and other days are not held up.

    Commits when the block ends without an error. Raises `DayBusy`.
    """
    connection = await asyncpg.connect(migrator_url)
    try:
        async with connection.transaction():
            await connection.execute(_ROLE)
            await connection.execute("SET LOCAL lock_timeout = '500ms'")
            try:
                await connection.execute(f"LOCK TABLE pool.usage_event_{day:%Y%m%d} IN SHARE MODE")
            except asyncpg.LockNotAvailableError as error:
                raise DayBusy(str(day)) from error
            yield ClosedDay(connection, day)
    finally:
        await connection.close()
