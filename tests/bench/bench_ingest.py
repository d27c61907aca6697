"""`ingest_http_batch100`, `ingest_http_single` and `end_to_end`: the usage service over HTTP.

The limit of ingest is the same producer without HTTP in front of it, on events that are encoded already. Throughput is
what an offered overload gets through; p50 and p99 are measured at 60 % of that. Server, broker, database and load
generator share the machine.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from itertools import cycle, islice
from statistics import median

import httpx
from load import Outcome, offer, post
from report import Row, Servers, percentiles, row
from usage_stack import UsageStack, memory_pss, usage_stack
from workload import Sample, Workload

RUNS = int(os.environ.get("BENCH_RUNS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
END_TO_END_SECONDS = float(os.environ.get("BENCH_END_TO_END_SECONDS", "20"))
BATCH = 100
_BATCHES, _SINGLE = "application/cloudevents-batch+json", "application/cloudevents+json"


async def run(servers: Servers) -> list[Row]:
    workload = Workload(events=1_000_000)
    samples = list(workload.take(200_000))
    rows: list[Row] = []
    async with usage_stack(servers) as stack:
        await stack.publish_state(workload)
        limits = [await stack.preload(samples) for _ in range(RUNS)]
        async with stack.role("usage-api") as process:
            await _ready(stack)
            batches = cycle(_batch_requests(stack, samples))
            rows.append(await _ingest(stack, "ingest_http_batch100", batches, BATCH, 900, median(limits), process.pid))
            singles = cycle(
                [post(sample.cloudevent(), _SINGLE, stack.secret, stack.port) for sample in samples[:50_000]]
            )
            rows.append(await _ingest(stack, "ingest_http_single", singles, 1, 8_000, median(limits), process.pid))
    async with usage_stack(servers) as stack:
        await stack.publish_state(workload)
        await stack.put_meters()
        rows.append(await _end_to_end(stack, workload))
    return rows


async def _ingest(
    stack: UsageStack, name: str, requests: cycle[bytes], events: int, overload: float, limit: float, pid: int
) -> Row:
    full: list[Outcome] = [await offer(stack.port, requests, rate=overload, seconds=SECONDS) for _ in range(RUNS)]
    rate = median(outcome.rate for outcome in full)
    calm = await offer(stack.port, requests, rate=rate * 0.6, seconds=SECONDS)
    return row(
        name,
        rate * events,
        "events/s" if events > 1 else "requests/s",
        limit=limit,
        runs=RUNS,
        statuses=_statuses(full),
        latency_seconds=percentiles(calm.latencies),
        latency_at=round(calm.rate * events),
        pss_mib=round(memory_pss(pid) / 2**20),
    )


async def _end_to_end(stack: UsageStack, workload: Workload) -> Row:
    """API and meter worker at work together: what is counted while an overload is offered, then how late at a tenth."""
    samples = list(workload.take(400_000))
    requests = _batch_requests(stack, samples)
    async with stack.role("usage-api"), stack.role("usage-meter"), stack.connect() as connection:
        await _ready(stack)
        started, before = time.perf_counter(), await stack.counted(connection)
        outcome = await offer(stack.port, cycle(requests), rate=600, seconds=END_TO_END_SECONDS)
        counted = await stack.counted(connection) - before
        sustained = counted / (time.perf_counter() - started)
        accepted = before + outcome.sent * BATCH
        while await stack.counted(connection) < accepted:  # noqa: ASYNC110 (the server's state)
            await asyncio.sleep(0.1)
        lateness = await _lateness(stack, requests)
    return row(
        "end_to_end",
        sustained,
        "events/s",
        seconds=END_TO_END_SECONDS,
        accepted_per_second=round(outcome.rate * BATCH),
        statuses=_statuses([outcome]),
        accepted_to_queryable_at_10000=percentiles(lateness),
    )


async def _lateness(stack: UsageStack, requests: list[bytes]) -> list[float]:
    """Seconds from acceptance to a committed rollup, at 10,000 events a second."""
    waiting: deque[tuple[int, float]] = deque()
    late: list[float] = []
    async with stack.connect() as connection:
        base = await stack.counted(connection)
        sending = asyncio.create_task(offer(stack.port, cycle(requests), rate=100, seconds=SECONDS))
        started, due = time.perf_counter(), 0
        while not sending.done() or (waiting and time.perf_counter() - started < 3 * SECONDS):
            now = time.perf_counter()
            if not sending.done():
                due = round((now - started) * 100) * BATCH
                waiting.append((due, now))
            counted = await stack.counted(connection) - base
            while waiting and waiting[0][0] <= counted:
                late.append(time.perf_counter() - waiting.popleft()[1])
            await asyncio.sleep(0.01)
        await sending
    return late


def _batch_requests(stack: UsageStack, samples: list[Sample]) -> list[bytes]:
    events = iter(sample.cloudevent() for sample in samples)
    requests = []
    while batch := list(islice(events, BATCH)):
        requests.append(post(b"[" + b",".join(batch) + b"]", _BATCHES, stack.secret, stack.port))
    return requests


def _statuses(outcomes: list[Outcome]) -> dict[int, int]:
    total: dict[int, int] = {}
    for outcome in outcomes:
        for status, count in outcome.statuses.items():
            total[status] = total.get(status, 0) + count
    return total


async def _ready(stack: UsageStack) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(300):
            try:
                if (await client.get(f"http://127.0.0.1:{stack.port}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise TimeoutError("the usage service does not become ready")
