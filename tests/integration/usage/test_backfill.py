"""A meter that counts what was stored before it says what one says that was there from the start."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from archives import ArchiveWorld

from usage_service.archive.reading import ArchiveReader
from usage_service.backfilling.keeper import BackfillKeeper

from .batches import Member
from .support import event

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


@pytest.fixture
def archive(usage, tmp_path):
    return ArchiveWorld(usage.database, usage.databases, tmp_path)


@pytest.fixture
def keeper(usage, archive):
    return keeper_of(usage, archive)


def keeper_of(usage, archive, **options: Any) -> BackfillKeeper:
    return BackfillKeeper(usage.databases.system, ArchiveReader(usage.databases, archive.store), **options)


def definition(aggregation: str) -> dict[str, Any]:
    return {"event_type": KIND, **METERS[aggregation]}


def gauge(tenant, number: int, minutes: float, **data: Any) -> dict[str, Any]:
    time = START + timedelta(minutes=minutes)
    return event(tenant, number, type=KIND, time=time.isoformat(), data={"v": 1, "user": "u", "disk": "a", **data})


def sample(tenants, dice: random.Random, numbers: range) -> list[dict[str, Any]]:
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


async def rows(usage, slug: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await usage.fetch(ROLLUPS, slug)]


async def finish(keeper: BackfillKeeper) -> None:
    while await keeper.turn():
        pass


async def backfill(usage, slug: str) -> dict[str, Any]:
    found = (await usage.http.get(f"/v1/meters/{slug}", headers=usage.operator)).json()["backfill"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("aggregation", METERS)
async def test_it_counts_what_a_meter_that_was_there_has_counted(usage, tenant_a, tenant_b, keeper, aggregation):
    dice = random.Random(aggregation)  # noqa: S311 (a test's dice)
    member = await Member.join(usage)
    await usage.put_meter("always", definition(aggregation))
    before = sample([tenant_a, tenant_b], dice, range(150))
    for start in range(0, 150, 50):
        await member.count(*before[start : start + 50])
    put = await usage.put_meter("late", {**definition(aggregation), "backfill_from": START.isoformat()})
    assert put["backfill"]["state"] == "waiting"
    await member.count(*sample([tenant_a, tenant_b], dice, range(150, 200)))
    await finish(keeper)
    await member.count(*sample([tenant_a, tenant_b], dice, range(200, 250)))

    assert await rows(usage, "late") == await rows(usage, "always") != []
    done = await backfill(usage, "late")
    assert (done["state"], done["days_done"]) == ("finished", done["days"])
    for tenant in (tenant_a, tenant_b):
        always, late = [
            (await usage.query(tenant, slug, window="hour", **SPAN))["items"] for slug in ("always", "late")
        ]
        assert [(each["window_start"], each["value"]) for each in late] == [
            (each["window_start"], each["value"]) for each in always
        ]
