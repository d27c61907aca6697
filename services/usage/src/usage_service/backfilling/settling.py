"""The last part of a backfill: hours that are full are counted once more, when every worker knows that they are.

A worker remembers which groups an hour has, and a backfill gives hours groups behind its back: it may have given one a
rollup of its own that is in `__other__` as well. Once the catalogue has a new version and every batch before it has
ended, no hour that has `__other__` gets another group, and counting it anew puts every event where its group is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import asyncpg

from usage_service.backfilling.jobs import Job
from usage_service.backfilling.scopes import Scope, archived_tenants
from usage_service.domain.instants import instant
from usage_service.domain.meters import CompiledMeter

Window = tuple[UUID, datetime]

_FULL: Final = """
SELECT tenant_id, window_start FROM pool.usage_rollup
 WHERE meter_id = $1 AND group_hash = $2 AND window_start > $3::timestamptz - interval '1 hour' AND window_start < $4
 ORDER BY window_start, tenant_id
"""
# A value may have been of a group that has its own rollup now; those that are left are stored again by the count.
_FORGET_VALUES: Final = """
DELETE FROM pool.usage_unique_value
 WHERE tenant_id = $1 AND meter_id = $2 AND window_start = $3 AND group_hash = $4
"""


async def full_windows(connection: asyncpg.Connection, job: Job, meter: CompiledMeter) -> Sequence[Window]:
    """The hours of a backfill that have `__other__`."""
    overflow = UUID(bytes=meter.overflow.hash)
    return [tuple(row) for row in await connection.fetch(_FULL, job.meter_id, overflow, *_span(job))]


async def open_window(connection: asyncpg.Connection, meter: CompiledMeter, window: Window) -> Scope:
    """The scope of one hour, which is to be counted in the caller's transaction."""
    tenant, start = window
    await connection.execute(_FORGET_VALUES, tenant, meter.meter.id, start, UUID(bytes=meter.overflow.hash))
    start = start.astimezone(UTC)
    before = UUID(int=tenant.int - 1)
    archived = tenant in await archived_tenants(connection, start.date(), before, limit=1)
    return Scope(start.date(), before, tenant, start.hour, start.hour + 1, archived=archived)


def _span(job: Job) -> tuple[datetime, datetime]:
    return instant(job.first), instant(job.last)
