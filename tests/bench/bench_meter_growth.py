"""`meter_worker_full_day`, `identities_rebuilt` and `meter_worker_tenants`: what is left of the rate as things grow.

- with ten million events in the day already, beside the same with none;
- the time in which a worker that has just started knows the identities of those events, while ingestion goes on;
- with 100,000 tenants by Zipf, beside 100 tenants, and beside the raw limit of the same mix.

`BENCH_STORED` is how many events are there before. SQL makes them, by the same key with identities as random, so what
the worker meets is the same as if it had stored them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from statistics import median

import asyncpg
from counting_rates import PROCESSES, counting_rate, make_days, raw_limit, until, worker_rate
from load import offer, statuses
from report import Row, Servers, percentiles, row
from usage_stack import MARK, UsageStack, batch_requests, ever_new, usage_stack
from workload import PARTITIONS, Sample, Workload

STORED = int(os.environ.get("BENCH_STORED", "10000000"))
EVENTS = int(os.environ.get("BENCH_EVENTS", "1200000"))
RUNS = int(os.environ.get("BENCH_GROWTH_RUNS", "3"))
MANY, FEW = int(os.environ.get("BENCH_TENANTS", "100000")), 100
INGEST_SECONDS = float(os.environ.get("BENCH_REBUILD_SECONDS", "25"))
REBUILT_GOAL_SECONDS = 5.0
_PART = 500_000
_DAY = date(2026, 11, 19)
# Of the reference workload's size. Each part is in the order of the key, as a batch is.
_STORE = """
INSERT INTO pool.usage_event (tenant_id, identity, event_time, received_at, kafka_offset, digest, catalogue_version,
                              day, kafka_partition, source, event_id, type, data)
SELECT tenants.id, gen_random_uuid(), $2::timestamptz + number * interval '8 milliseconds', $2::timestamptz,
       number, hashint8extended(number, 7), 1, $3::date, tenants.partition, 'bench/api', md5(number::text),
       'http.request', '{"method":"GET","path":"/v1/documents/{id}","status":200,"bytes":51234}'
  FROM generate_series($4::bigint, $5::bigint) AS number
  JOIN unnest($1::uuid[], $6::int[]) WITH ORDINALITY AS tenants (id, partition, place)
    ON tenants.place = 1 + number % cardinality($1::uuid[])
 ORDER BY 1, 2
"""
_EPOCHS = "SELECT COALESCE(sum(owner_epoch), 0)::bigint FROM system.consumer_offset WHERE topic LIKE '%usage.events.v1'"


async def run(servers: Servers) -> list[Row]:
    return [*await _full_day(servers), await _many_tenants(servers)]


async def _full_day(servers: Servers) -> list[Row]:
    workload = Workload(events=10 * EVENTS)  # which lie in a part of one day then
    samples = list(workload.take(EVENTS))
    empty: list[float] = []
    full: list[float] = []
    for _ in range(RUNS):
        async with usage_stack(servers) as stack:
            empty.append((await worker_rate(stack, workload, samples)).rate)
    async with usage_stack(servers) as stack:
        await stack.put_meters()
        await stack.publish_state(workload)
        await _store(stack, workload)
        rebuilt = await _rebuild(stack, samples)
        for number in range(RUNS):
            await stack.preload(samples if not number else list(workload.take(EVENTS)))
            full.append((await counting_rate(stack, EVENTS)).rate)
    return [
        row(
            "meter_worker_full_day",
            median(full),
            "events/s",
            limit=median(empty),
            goal_ratio=0.8,
            stored=STORED,
            events=EVENTS,
            processes=PROCESSES,
            full=[round(rate) for rate in full],
            empty=[round(rate) for rate in empty],
        ),
        rebuilt,
    ]


async def _store(stack: UsageStack, workload: Workload) -> None:
    tenants = workload.tenant_ids
    start = datetime(_DAY.year, _DAY.month, _DAY.day, tzinfo=UTC)
    partitions = [tenant.int % PARTITIONS for tenant in tenants]
    async with stack.connect() as connection:
        await make_days(connection, {_DAY})
        for first in range(0, STORED, _PART):
            last = min(first + _PART, STORED) - 1
            await connection.execute(_STORE, tenants, start, _DAY, first, last, partitions)
        # As autovacuum has been at a day that has filled for hours.
        await connection.execute("VACUUM (ANALYZE) pool.usage_event")


async def _rebuild(stack: UsageStack, samples: Sequence[Sample]) -> Row:
    """From when a process has its partitions to its first commit, which is after the identities are loaded."""
    requests = ever_new(batch_requests(stack, samples, source=MARK))
    async with stack.connect() as connection, stack.role("usage-api"):
        await stack.ready()
        before, epochs = await stack.counted(connection), await connection.fetchval(_EPOCHS)
        ingesting = asyncio.create_task(offer(stack.port, requests, rate=100, seconds=INGEST_SECONDS))
        async with stack.role("usage-meter"):
            await _claimed(connection, epochs)
            started = time.perf_counter()
            await until(connection, stack, before + 1)
            seconds = time.perf_counter() - started
            ingested = await ingesting
    return row(
        "identities_rebuilt",
        seconds,
        "s",
        goal=REBUILT_GOAL_SECONDS,
        identities=STORED,
        ingested_meanwhile_per_second=round(ingested.rate * 100),
        statuses=statuses([ingested]),
        latency_seconds=percentiles(ingested.latencies),
    )


async def _claimed(connection: asyncpg.Connection, epochs: int) -> None:
    deadline = time.monotonic() + 60
    while await connection.fetchval(_EPOCHS) == epochs:
        if time.monotonic() > deadline:
            raise TimeoutError("no worker has claimed a partition")
        await asyncio.sleep(0.02)


async def _many_tenants(servers: Servers) -> Row:
    rates: dict[int, list[float]] = {FEW: [], MANY: []}
    raw: list[float] = []
    for _ in range(RUNS):
        for tenants, found in rates.items():
            workload = Workload(events=max(1_000_000, EVENTS), tenants=tenants)
            samples = list(workload.take(EVENTS))
            if tenants == MANY:
                async with usage_stack(servers) as stack:
                    raw.append(await raw_limit(stack, samples))
            async with usage_stack(servers) as stack:
                found.append((await worker_rate(stack, workload, samples)).rate)
    many = rates[MANY]
    return row(
        "meter_worker_tenants",
        median(many),
        "events/s",
        limit=median(rates[FEW]),
        goal_ratio=0.5,
        tenants=MANY,
        of_raw=round(median(rate / limit for rate, limit in zip(many, raw, strict=True)), 4),
        of_raw_goal_ratio=0.7,
        raw=[round(limit) for limit in raw],
        many=[round(rate) for rate in many],
        few=[round(rate) for rate in rates[FEW]],
        processes=PROCESSES,
    )
