"""What is counted in one transaction: some tenants of a day, or some hours of one that has many events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Self
from uuid import UUID

import asyncpg

from usage_service.backfilling.jobs import Job

CHUNK_EVENTS: Final = 100_000
"""Events, whatever their type, that one transaction reads, but for those of an hour of one tenant."""

_HOURS: Final = 24
_ARCHIVED_AT_ONCE: Final = 1_000

# By the key of the table, and no more of it than is needed.
_STORED: Final = """
SELECT tenant_id, count(*) AS rows
  FROM (SELECT tenant_id FROM pool.usage_event WHERE day = $1 AND tenant_id > $2 ORDER BY tenant_id LIMIT $3) AS next
 GROUP BY 1 ORDER BY 1
"""
_ROWS: Final = "SELECT count(*) FROM pool.usage_event WHERE day = $1 AND tenant_id = $2"
_ARCHIVED: Final = """
SELECT part.tenant_id, sum(part.rows)::bigint AS rows
  FROM system.archive_object AS object JOIN system.archived_tenant AS part ON part.object_id = object.id
 WHERE object.day = $1 AND object.released_at IS NOT NULL AND part.tenant_id > $2
 GROUP BY 1 ORDER BY 1 LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """The hours [first_hour, last_hour) of a day, of the tenants after one and up to another.

    What is `archived` is of one tenant alone.
    """

    day: date
    after: UUID
    upto: UUID
    first_hour: int
    last_hour: int
    archived: bool

    @property
    def span(self) -> tuple[datetime, datetime]:
        midnight = datetime.combine(self.day, time(), UTC)
        return midnight + timedelta(hours=self.first_hour), midnight + timedelta(hours=self.last_hour)

    @property
    def next_place(self) -> tuple[UUID, int]:
        """Where the next one begins: the last tenant that is done, and the hours that are done of the id after it."""
        return (self.upto, 0) if self.last_hour == _HOURS else (self.after, self.last_hour)

    @classmethod
    def of(cls, tenant: UUID, day: date, hours: tuple[int, int], *, archived: bool) -> Self:
        """The scope of one tenant, whichever others come or go meanwhile."""
        return cls(day, UUID(int=tenant.int - 1), tenant, *hours, archived)


async def next_scope(connection: asyncpg.Connection, job: Job, *, events: int = CHUNK_EVENTS) -> Scope | None:
    """What comes next of the job's day; None when the day is done."""
    assert job.day is not None
    if job.hours:
        # The tenant may have been purged: what is left of its day is done at once then.
        return await _scope_of(connection, job, UUID(int=job.after_tenant.int + 1), events)
    stored = {
        row["tenant_id"]: row["rows"] for row in await connection.fetch(_STORED, job.day, job.after_tenant, events)
    }
    archived = await archived_tenants(connection, job.day, job.after_tenant)
    if not stored and not archived:
        return None
    first = min(stored.keys() | archived.keys())
    upto = None if first in archived else _last_whole(stored, archived, events)
    if upto is None:
        return await _scope_of(connection, job, first, events)
    return Scope(job.day, job.after_tenant, upto, 0, _HOURS, archived=False)


async def _scope_of(connection: asyncpg.Connection, job: Job, tenant: UUID, events: int) -> Scope:
    """Some hours of one tenant."""
    assert job.day is not None
    archived = await archived_rows(connection, job.day, tenant)
    rows = await connection.fetchval(_ROWS, job.day, tenant) + archived
    last = min(job.hours + max(1, _HOURS * events // max(rows, 1)), _HOURS)
    return Scope.of(tenant, job.day, (job.hours, last), archived=archived > 0)


async def archived_rows(connection: asyncpg.Connection, day: date, tenant: UUID) -> int:
    """How many rows of a tenant's day the archive alone has."""
    return (await archived_tenants(connection, day, UUID(int=tenant.int - 1), limit=1)).get(tenant, 0)


async def archived_tenants(
    connection: asyncpg.Connection, day: date, after: UUID, *, limit: int = _ARCHIVED_AT_ONCE
) -> dict[UUID, int]:
    """The next tenants of whose day the archive alone has rows, and how many."""
    return {row["tenant_id"]: row["rows"] for row in await connection.fetch(_ARCHIVED, day, after, limit)}


def _last_whole(stored: Mapping[UUID, int], archived: Mapping[UUID, int], events: int) -> UUID | None:
    """The last tenant of which all rows of the day were seen, before the first one that has some in the archive."""
    tenants = list(stored)
    if sum(stored.values()) >= events:
        tenants.pop()
    until = min(archived, default=None)
    whole = [tenant for tenant in tenants if until is None or tenant < until]
    return whole[-1] if whole else None
