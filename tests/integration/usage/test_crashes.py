"""The meter worker killed with SIGKILL four times during a replay full of duplicates: totals equal a simple oracle."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import pytest

from tenantry import Tier
from tenantry.testing import eventually

from .support import API_CALLS, BANDWIDTH, RoleProcess

KILLS = 4
EVENTS = 40_000
START = datetime(2026, 11, 10, tzinfo=UTC)


class Replay:
    """A seeded stream with copies inside a batch, across batches and on other days, and the totals it must give."""

    def __init__(self, tenants) -> None:
        self._random = random.Random(20261121)  # noqa: S311
        self._tenants = tenants
        self._sent: list[tuple[Any, str, datetime, Decimal]] = []
        self._stored: dict[tuple, list] = {}
        self.calls: Counter = Counter()
        self.bytes: Counter = Counter()

    def take(self, count: int):
        for _ in range(count):
            sample = self._copy() if self._sent and self._random.random() < 0.3 else self._new()
            self._count(*sample)
            yield sample[0], self._encode(*sample)

    def _new(self):
        tenant = self._random.choice(self._tenants)
        time = START + timedelta(seconds=self._random.randrange(3 * 86_400))
        sample = (tenant, f"e-{len(self._sent)}", time, Decimal(self._random.randrange(10_000)) / 100)
        self._sent.append(sample)
        return sample

    def _copy(self):
        recent = self._sent[-200:] if self._random.random() < 0.5 else self._sent
        tenant, event_id, time, size = self._random.choice(recent)
        return tenant, event_id, time + timedelta(days=self._random.choice([0, 0, 0, 1, -1])), size

    def _count(self, tenant, event_id, time, size) -> None:
        days = self._stored.setdefault((tenant, event_id), [])
        if all(abs((day - time.date()).days) > 1 for day in days):
            days.append(time.date())
            self.calls[tenant, time.replace(minute=0, second=0)] += 1
            self.bytes[tenant] += size

    def _encode(self, tenant, event_id, time, size) -> bytes:
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": "replay",
            "type": "http.request",
            "subject": str(tenant),
            "time": time,
            "data": {"method": "GET", "path": f"/{int(size) % 7}", "bytes": size},
        }
        return msgspec.json.Encoder(decimal_format="number").encode(event)


@pytest.mark.chaos
async def test_killed_workers_count_everything_once(usage, tenant_factory):
    tenants = [tenant_factory() for _ in range(40)]
    await usage.publish_state(tenants, [Tier(name="standard", version=1, max_event_age_seconds=None)])
    await usage.put_meter("api-calls", API_CALLS)
    await usage.put_meter("bandwidth", BANDWIDTH)
    replay = Replay([tenant.id for tenant in tenants])
    moments = random.Random(7)  # noqa: S311
    environment = usage.environment() | {"USAGE_METER_BATCH": "400", "USAGE_METER_MEMBERS": "2"}
    worker = await RoleProcess.start("usage-meter", environment)
    kills = 0
    try:
        sending = asyncio.create_task(send_all(usage, replay))
        while kills < KILLS:
            before = await progress(usage)
            # Never killed before it has counted something more, so that every kill meets a worker at work.
            await eventually(partial(moved, usage, before), within=60)
            await asyncio.sleep(moments.uniform(0, 0.3))
            assert worker.alive
            await worker.kill()
            kills += 1
            worker = await RoleProcess.start("usage-meter", environment)
        await sending
        await eventually(usage.counted, within=90, interval=0.3)
    finally:
        await worker.kill()
    assert await hourly(usage) == replay.calls
    assert await summed(usage) == replay.bytes
    [kept] = await usage.fetch("SELECT count(*) FROM pool.usage_event")
    assert kept[0] == sum(replay.calls.values())


async def send_all(usage, replay) -> None:
    for _ in range(EVENTS // 500):
        samples = list(replay.take(500))
        await usage.produce([value for _, value in samples], [tenant for tenant, _ in samples])
        await asyncio.sleep(0.15)


async def progress(usage) -> int:
    [row] = await usage.fetch("SELECT COALESCE(sum(next_offset), 0)::bigint FROM system.consumer_offset")
    return row[0]


async def moved(usage, before: int) -> bool:
    return await progress(usage) > before


async def hourly(usage) -> Counter:
    rows = await usage.fetch(
        """
        SELECT tenant_id, window_start, sum(count)::bigint AS count FROM pool.usage_rollup
          JOIN system.meter ON meter.id = meter_id WHERE slug = 'api-calls' GROUP BY 1, 2
        """
    )
    return Counter({(row["tenant_id"], row["window_start"]): row["count"] for row in rows})


async def summed(usage) -> Counter:
    rows = await usage.fetch(
        """
        SELECT tenant_id, sum(sum) AS total FROM pool.usage_rollup
          JOIN system.meter ON meter.id = meter_id WHERE slug = 'bandwidth' GROUP BY 1
        """
    )
    return Counter({row["tenant_id"]: row["total"] for row in rows})
