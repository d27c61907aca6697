"""`end_to_end`: from HTTP to queryable rollups, the API, the meter worker and the relay at work together.

What is counted while an overload is offered for `BENCH_END_TO_END_SECONDS`, the memory of all processes meanwhile, and
then how late an event is at 10,000 a second. Every event is a new one, but for the copies of the workload.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterator
from math import inf

import asyncpg
from load import offer, statuses
from report import Row, Servers, drift, percentiles, row
from usage_stack import BATCH, MARK, UsageStack, batch_requests, ever_new, sample_memory, usage_stack
from workload import Workload

SECONDS = float(os.environ.get("BENCH_END_TO_END_SECONDS", "300"))
OFFERED = float(os.environ.get("BENCH_END_TO_END_RATE", "40000"))
LATE_SECONDS = float(os.environ.get("BENCH_LATE_SECONDS", "30"))
_MEMORY_SAMPLES = 30
_EVENTS = 400_000


async def run(servers: Servers) -> list[Row]:
    workload = Workload(events=_EVENTS)
    async with usage_stack(servers) as stack:
        await stack.publish_state(workload)
        await stack.put_meters()
        return [await _end_to_end(stack, workload)]


async def _end_to_end(stack: UsageStack, workload: Workload) -> Row:
    requests = ever_new(batch_requests(stack, list(workload.take(_EVENTS)), source=MARK))
    async with (
        stack.role("usage-api") as api,
        stack.role("usage-meter") as meter,
        stack.role("usage-relay") as relay,
        stack.connect() as connection,
    ):
        await stack.ready()
        await offer(stack.port, requests, rate=10, seconds=5)  # until the members have their partitions
        sampling = asyncio.create_task(sample_memory(SECONDS / _MEMORY_SAMPLES, api.pid, meter.pid, relay.pid))
        started, before = time.perf_counter(), await stack.counted(connection)
        outcome = await offer(stack.port, requests, rate=OFFERED / BATCH, seconds=SECONDS)
        counted = await stack.counted(connection) - before
        sustained = counted / (time.perf_counter() - started)
        sampling.cancel()
        pss = await sampling
        backlog = outcome.sent * BATCH - counted
        await _settle(stack, connection)
        lateness = await _lateness(stack, requests)
    late = percentiles(lateness)
    return row(
        "end_to_end",
        sustained,
        "events/s",
        goal=35_000,
        offered_per_second=OFFERED,
        seconds=SECONDS,
        accepted_per_second=round(outcome.rate * BATCH),
        not_counted_at_the_end=backlog,
        statuses=statuses([outcome]),
        pss_mib=[round(each / 2**20) for each in pss],
        accepted_to_queryable_at_10000=late,
        never_queryable=lateness.count(inf),
        at_most={"late_seconds_p99": [late.get("p99"), 1.0], "pss_drift_of_last_four_fifths": [drift(pss), 0.05]},
    )


async def _settle(stack: UsageStack, connection: asyncpg.Connection) -> None:
    """Waits until nothing more is counted."""
    counted, last = await stack.counted(connection), -1
    while counted != last:
        await asyncio.sleep(2)
        counted, last = await stack.counted(connection), counted


async def _lateness(stack: UsageStack, requests: Iterator[bytes]) -> list[float]:
    """Seconds from acceptance to a committed rollup, at 10,000 events a second; infinite for what never came."""
    waiting: deque[tuple[int, float]] = deque()
    late: list[float] = []
    async with stack.connect() as connection:
        base = await stack.counted(connection)
        sending = asyncio.create_task(offer(stack.port, requests, rate=100, seconds=LATE_SECONDS))
        started, due = time.perf_counter(), 0
        while not sending.done() or (waiting and time.perf_counter() - started < 3 * LATE_SECONDS):
            now = time.perf_counter()
            if not sending.done():
                due = round((now - started) * 100) * BATCH
                waiting.append((due, now))
            counted = await stack.counted(connection) - base
            while waiting and waiting[0][0] <= counted:
                late.append(time.perf_counter() - waiting.popleft()[1])
            await asyncio.sleep(0.01)
        await sending
    return late + [inf] * len(waiting)
