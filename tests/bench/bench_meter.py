"""`meter_worker`: events a second from Kafka to committed rollups, beside what plain SQL does on the same events."""

from __future__ import annotations

import os
from statistics import median

from counting_rates import PROCESSES, Counted, raw_limit, worker_rate
from report import Row, Servers, row
from usage_stack import usage_stack
from workload import Workload

EVENTS = int(os.environ.get("BENCH_EVENTS", "1200000"))
RUNS = int(os.environ.get("BENCH_RUNS", "5"))


async def run(servers: Servers) -> list[Row]:
    workload = Workload(events=max(1_000_000, EVENTS))
    samples = list(workload.take(EVENTS))
    limits: list[float] = []
    counted: list[Counted] = []
    for _ in range(RUNS):
        async with usage_stack(servers) as stack:
            limits.append(await raw_limit(stack, samples))
        async with usage_stack(servers) as stack:
            counted.append(await worker_rate(stack, workload, samples))
    figure = row(
        "meter_worker",
        median(each.rate for each in counted),
        "events/s",
        limit=median(limits),
        goal=80_000,
        goal_ratio=0.7,
        runs=RUNS,
        events=EVENTS,
        processes=PROCESSES,
        rates=[round(each.rate) for each in counted],
        with_its_end=round(median(each.whole for each in counted)),
        limits=[round(limit) for limit in limits],
        pss_mib=round(median(each.pss for each in counted) / 2**20),
    )
    figure["ratio"] = round(median(each.rate / limit for each, limit in zip(counted, limits, strict=True)), 4)
    return [figure]
