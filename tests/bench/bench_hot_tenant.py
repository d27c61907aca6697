"""`hot_tenant`: what one tenant's events cost under one key and under many, by what the workers know of its keys.

One tenant sends everything. Under one key a single consumer member counts it; under twelve all members of all processes
do, and share its rollups' rows. `looked_up`: days that may have copies under another key. `mixed`: records of several
keys may come. All in turn, in one run, on the same events; the limit is the figure under one key.
"""

from __future__ import annotations

import os
from statistics import median

from counting_rates import PROCESSES, counting_rate
from report import Row, Servers, row
from usage_stack import UsageStack, usage_stack
from workload import PARTITIONS, Workload

EVENTS = int(os.environ.get("BENCH_EVENTS", "200000"))
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
KNOWN = {
    "one_key": None,
    "settled": f"INSERT INTO system.spread_tenant (tenant_id, buckets) VALUES ($1, {PARTITIONS})",
    "looked_up": f"INSERT INTO system.spread_tenant VALUES ($1, {PARTITIONS}, NULL, '2100-01-01')",
    "mixed": f"INSERT INTO system.spread_tenant VALUES ($1, {PARTITIONS}, '2100-01-01', NULL)",
}


async def run(servers: Servers) -> list[Row]:
    rates: dict[str, list[float]] = {name: [] for name in KNOWN}
    for _ in range(RUNS):
        for name, statement in KNOWN.items():
            async with usage_stack(servers) as stack:
                rates[name].append(await _rate(stack, statement))
    one = median(rates["one_key"])
    return [
        row(f"hot_tenant_{name}", median(found), "events/s", limit=one, runs=RUNS, events=EVENTS, processes=PROCESSES)
        for name, found in rates.items()
    ]


async def _rate(stack: UsageStack, known: str | None) -> float:
    workload = Workload(events=1_000_000, tenants=1)
    samples = list(workload.take(EVENTS))
    await stack.put_meters()
    await stack.publish_state(workload)
    if known is not None:
        async with stack.connect() as connection:
            await connection.execute(known, workload.tenant_ids[0])
    await stack.preload(samples, buckets=1 if known is None else PARTITIONS)
    return (await counting_rate(stack, EVENTS)).whole
