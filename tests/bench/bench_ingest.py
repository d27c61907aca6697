"""`ingest_http_batch100` and `ingest_http_single`: events over HTTP to Kafka.

The limit of ingest is the same producer without HTTP in front of it, on events that are encoded already. Throughput is
what an offered overload gets through; p50 and p99 are measured at 60 % of that. Server, broker, database and load
generator share the machine.
"""

from __future__ import annotations

import os
from itertools import cycle
from statistics import median

from load import Outcome, offer, post, statuses
from report import Row, Servers, percentiles, row
from usage_stack import BATCH, UsageStack, batch_requests, memory_pss, usage_stack
from workload import Workload

RUNS = int(os.environ.get("BENCH_RUNS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
_SINGLE = "application/cloudevents+json"


async def run(servers: Servers) -> list[Row]:
    workload = Workload(events=1_000_000)
    samples = list(workload.take(200_000))
    rows: list[Row] = []
    async with usage_stack(servers) as stack:
        await stack.publish_state(workload)
        limits = [await stack.preload(samples) for _ in range(RUNS)]
        async with stack.role("usage-api") as process:
            await stack.ready()
            batches = cycle(batch_requests(stack, samples))
            rows.append(
                await _ingest(stack, "ingest_http_batch100", batches, BATCH, 900, median(limits), process.pid, 60_000)
            )
            singles = cycle(
                [post(sample.cloudevent(), _SINGLE, stack.secret, stack.port) for sample in samples[:50_000]]
            )
            rows.append(
                await _ingest(stack, "ingest_http_single", singles, 1, 8_000, median(limits), process.pid, 4_000)
            )
    return rows


async def _ingest(
    stack: UsageStack,
    name: str,
    requests: cycle[bytes],
    events: int,
    overload: float,
    limit: float,
    pid: int,
    goal: int,
) -> Row:
    full: list[Outcome] = [await offer(stack.port, requests, rate=overload, seconds=SECONDS) for _ in range(RUNS)]
    rate = median(outcome.rate for outcome in full)
    calm = await offer(stack.port, requests, rate=rate * 0.6, seconds=SECONDS)
    return row(
        name,
        rate * events,
        "events/s" if events > 1 else "requests/s",
        limit=limit,
        goal=goal,
        runs=RUNS,
        statuses=statuses(full),
        latency_seconds=percentiles(calm.latencies),
        latency_at=round(calm.rate * events),
        pss_mib=round(memory_pss(pid) / 2**20),
    )
