"""Meters of every aggregation and events for them, for the tests of backfills."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from archives import ArchiveWorld

from tenantry import Tenant
from usage_service.archive.reading import ArchiveReader
from usage_service.backfilling.keeper import BackfillKeeper

from .support import Usage, event

START = (datetime.now(UTC) - timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)
SPAN = {"from": START.isoformat(), "to": (START + timedelta(days=4)).isoformat()}
KIND = "gauge"
METERS: dict[str, dict[str, Any]] = {
    "count": {"aggregation": "count", "group_by": {"disk": "$.disk"}},
    "sum": {"aggregation": "sum", "value": "$.v", "filter": {"$.disk": {"ne": "b"}}},
    "min": {"aggregation": "min", "value": "$.v"},
    "max": {"aggregation": "max", "value": "$.v", "group_by": {"user": "$.user"}},
    "avg": {"aggregation": "avg", "value": "$.v"},
    "latest": {"aggregation": "latest", "value": "$.v", "group_by": {"disk": "$.disk"}},
    "unique_count": {"aggregation": "unique_count", "value": "$.user", "group_by": {"disk": "$.disk"}},
    "time_weighted": {"aggregation": "time_weighted", "value": "$.v", "group_by": {"disk": "$.disk"}},
}
ROLLUPS = """
SELECT tenant_id, window_start, groups, count, sum, minimum, maximum, uniques, latest, latest_time, latest_received_at,
       latest_partition, latest_offset, first_time, integral,
       (SELECT array_agg(value_hash ORDER BY value_hash) FROM pool.usage_unique_value AS value
         WHERE (value.tenant_id, value.meter_id, value.window_start, value.group_hash)
             = (rollup.tenant_id, rollup.meter_id, rollup.window_start, rollup.group_hash)) AS values
  FROM pool.usage_rollup AS rollup JOIN system.meter AS meter ON meter.id = meter_id
 WHERE slug = $1 AND count > 0 ORDER BY tenant_id, window_start, groups
"""


def backfiller_of(usage: Usage, archive: ArchiveWorld, **options: Any) -> BackfillKeeper:
    return BackfillKeeper(usage.databases.system, ArchiveReader(usage.databases, archive.store), **options)


def definition(aggregation: str) -> dict[str, Any]:
    return {"event_type": KIND, **METERS[aggregation]}


def gauge(tenant: Tenant, number: int, minutes: float, **data: Any) -> dict[str, Any]:
    time = START + timedelta(minutes=minutes)
    return event(tenant, number, type=KIND, time=time.isoformat(), data={"v": 1, "user": "u", "disk": "a", **data})


def sample(tenants: Sequence[Tenant], dice: random.Random, numbers: range) -> list[dict[str, Any]]:
    """Events of two days in any order; one in twenty has no value."""
    return [
        gauge(
            dice.choice(tenants),
            number,
            dice.choice([dice.uniform(0, 2880), dice.randrange(0, 2880, 30)]),
            v=dice.randint(-9, 99) if dice.random() < 0.95 else "none",
            user=f"u-{dice.randint(0, 9)}",
            disk=dice.choice("abc"),
        )
        for number in numbers
    ]


async def rows(usage: Usage, slug: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await usage.fetch(ROLLUPS, slug)]


async def finish(backfiller: BackfillKeeper) -> None:
    while await backfiller.turn():
        pass


async def backfill(usage: Usage, slug: str) -> dict[str, Any]:
    found = (await usage.http.get(f"/v1/meters/{slug}", headers=usage.operator)).json()["backfill"]
    assert isinstance(found, dict)
    return found
