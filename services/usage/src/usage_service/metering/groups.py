"""The groups that have a rollup of their own in a window of a meter with dimensions; all others are in `__other__`."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import asyncpg

from usage_service.domain.instants import instant
from usage_service.metering.counting import WindowKey

_GROUPS = """
SELECT asked.ordinal - 1 AS ordinal, array_agg(rollup.group_hash) AS hashes
  FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[])
       WITH ORDINALITY AS asked (tenant_id, meter_id, window_start, ordinal)
  JOIN pool.usage_rollup AS rollup USING (tenant_id, meter_id, window_start)
 GROUP BY 1
"""


async def groups_of(connection: asyncpg.Connection, windows: Iterable[WindowKey]) -> dict[WindowKey, set[bytes]]:
    """The hashes by window, that of `__other__` among them where it has a rollup too."""
    asked = list(windows)
    found: dict[WindowKey, set[bytes]] = {window: set() for window in asked}
    if asked:
        rows = await connection.fetch(
            _GROUPS,
            [UUID(bytes=tenant) for tenant, _, _ in asked],
            [UUID(bytes=meter) for _, meter, _ in asked],
            [instant(start) for _, _, start in asked],
        )
        for ordinal, hashes in rows:
            found[asked[ordinal]].update(each.bytes for each in hashes)
    return found
