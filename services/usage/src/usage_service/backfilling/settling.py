"""The last part of a backfill: hours that are full are counted once more, when every worker knows that they are.

A worker remembers which groups an hour has, and a backfill gives hours groups behind its back: it may have given one a
rollup of its own that is in `__other__` as well. Once the catalogue has a new version and every batch before it has
ended, no full hour gets another group, and counting it anew puts every event where its group is. An hour that has
`__other__` and is not full, for values that are too long, is counted anew as well, and stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import asyncpg

from usage_service.backfilling.jobs import Job
from usage_service.backfilling.scopes import Scope, archived_rows
from usage_service.domain.instants import instant
from usage_service.domain.meters import CompiledMeter

Window = tuple[UUID, datetime]

_FULL: Final = """
SELECT tenant_id, window_start FROM pool.usage_rollup
 WHERE meter_id = $1 AND group_hash = $2 AND window_start > $3::timestamptz - interval '1 hour' AND window_start < $4
 ORDER BY window_start, tenant_id
"""


async def full_windows(connection: asyncpg.Connection, job: Job, meter: CompiledMeter) -> Sequence[Window]:
    """The hours of a backfill that have `__other__`."""
    overflow = UUID(bytes=meter.overflow.hash)
    return [tuple(row) for row in await connection.fetch(_FULL, job.key.meter, overflow, *_span(job))]


async def scope_of(connection: asyncpg.Connection, window: Window) -> Scope:
    """The scope of one hour."""
    tenant, start = window
    start = start.astimezone(UTC)
    archived = await archived_rows(connection, start.date(), tenant) > 0
    return Scope.of(tenant, start.date(), (start.hour, start.hour + 1), archived=archived)


def _span(job: Job) -> tuple[datetime, datetime]:
    return instant(job.first), instant(job.last)
