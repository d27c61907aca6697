"""Events that the tests send, and what was counted of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tenantry_dev.demo.comparison import query
from tenantry_dev.sample.api import Api
from tenantry_dev.sample.flow import SampleRun

BATCH_TYPE = {"Content-Type": "application/cloudevents-batch+json"}


def make(name: str, run: SampleRun, start: datetime, count: int) -> list[dict[str, Any]]:
    """Events of all tenants in turn, one byte each, ten a minute from `start`."""
    return [
        {
            "specversion": "1.0",
            "id": f"{name}-{n}",
            "source": "e2e",
            "type": "http.request",
            "subject": run.tenants[n % len(run.tenants)].id,
            "time": (start + timedelta(seconds=6 * n)).isoformat(),
            "data": {"method": "GET", "path": "/", "status": 200, "bytes": 1},
        }
        for n in range(count)
    ]


def month(number: int) -> datetime:
    """A month of its own for each test, long before those of the traces."""
    return datetime(2020, number, 1, tzinfo=UTC)


async def counted(usage: Api, run: SampleRun, start: datetime) -> tuple[int, int]:
    """Requests and bytes of all tenants in the month that begins at `start`."""
    end = (start + timedelta(days=32)).replace(day=1)
    totals = [
        sum([await query(usage, meter, tenant.id, start, end, "month") for tenant in run.tenants])
        for meter in ("http-requests", "http-bytes")
    ]
    return int(totals[0]), int(totals[1])


async def expect_counted(usage: Api, run: SampleRun, start: datetime, count: int, *, within: float) -> None:
    """Waits until exactly `count` requests of a byte each are counted in the month, then looks once more."""
    deadline = time.monotonic() + within
    while (found := await counted(usage, run, start)) != (count, count):
        assert time.monotonic() < deadline, f"{found} counted after {within} s, {count} sent"
        await asyncio.sleep(0.2)
    await asyncio.sleep(1)  # a copy that is still on its way must not count either
    assert await counted(usage, run, start) == (count, count)


def batches(events: Sequence[dict[str, Any]], size: int) -> list[list[dict[str, Any]]]:
    return [list(events[start : start + size]) for start in range(0, len(events), size)]
