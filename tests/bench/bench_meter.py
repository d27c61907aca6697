"""`meter_worker`: events a second from Kafka to committed rollups, beside what plain SQL does on the same events.

The raw limit is one connection that copies ready-made rows, inserts them with dedupe on the key alone and aggregates
what was inserted in SQL: no decoding, no look at neighbouring days, no conflicts, no queue of changes, no Kafka.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from statistics import median
from uuid import UUID

import asyncpg
from report import Row, Servers, row
from usage_stack import UsageStack, memory_pss, usage_stack
from workload import Sample, Workload

from usage_service.domain.identity import digest_of, identity_of
from usage_service.domain.instants import DAY, day_of, microseconds
from usage_service.metering.rows import EventRow
from usage_service.metering.staging import EVENT_COLUMNS, STAGES, event_bytes

EVENTS = int(os.environ.get("BENCH_EVENTS", "300000"))
RUNS = int(os.environ.get("BENCH_RUNS", "5"))
RAW_BATCH = 20_000
_HEAD, _TAIL = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"

_RAW = f"""
WITH inserted AS (
    INSERT INTO pool.usage_event ({", ".join(EVENT_COLUMNS)}, catalogue_version)
    SELECT {", ".join(EVENT_COLUMNS)}, 1 FROM staged_event ORDER BY tenant_id, identity
    ON CONFLICT DO NOTHING RETURNING tenant_id, type, event_time, data),
read AS (
    SELECT tenant_id, type, date_trunc('hour', event_time, 'UTC') AS hour, data::jsonb AS data FROM inserted),
counted AS (
    SELECT tenant_id, $1::uuid AS meter, hour, md5((data ->> 'method') || '|' || (data ->> 'path'))::uuid AS grouped,
           count(*) AS count, NULL::numeric AS sum FROM read WHERE type = 'http.request' GROUP BY 1, 2, 3, 4
    UNION ALL
    SELECT tenant_id, $2::uuid, hour, $2::uuid, count(*), sum((data ->> 'bytes')::numeric)
      FROM read WHERE type = 'http.request' GROUP BY 1, 2, 3, 4
    UNION ALL
    SELECT tenant_id, $3::uuid, hour, $3::uuid, count(*), sum((data ->> 'input_tokens')::numeric)
      FROM read WHERE type = 'llm.request' GROUP BY 1, 2, 3, 4)
INSERT INTO pool.usage_rollup AS rollup
       (tenant_id, meter_id, window_start, group_hash, version, count, groups, sum)
SELECT tenant_id, meter, hour, grouped, 1, count, '', sum FROM counted ORDER BY 1, 2, 3, 4
ON CONFLICT (tenant_id, meter_id, window_start, group_hash) DO UPDATE SET
       version = rollup.version + 1, count = rollup.count + excluded.count, sum = rollup.sum + excluded.sum
"""


async def run(servers: Servers) -> list[Row]:
    workload = Workload(events=1_000_000)
    samples = list(workload.take(EVENTS))
    rates, limits, ratios, memory = [], [], [], []
    for _ in range(RUNS):
        async with usage_stack(servers) as stack:
            limits.append(await raw_limit(stack, samples))
        async with usage_stack(servers) as stack:
            rate, pss = await worker_rate(stack, workload, samples)
            rates.append(rate)
            memory.append(pss)
        ratios.append(rates[-1] / limits[-1])
    figure = row(
        "meter_worker",
        median(rates),
        "events/s",
        limit=median(limits),
        runs=RUNS,
        events=EVENTS,
        rates=[round(rate) for rate in rates],
        limits=[round(limit) for limit in limits],
        pss_mib=round(median(memory) / 2**20),
    )
    figure["ratio"] = round(median(ratios), 4)
    return [figure]


async def raw_limit(stack: UsageStack, samples: list[Sample]) -> float:
    """Events a second of plain SQL from one connection, rows encoded beforehand."""
    batches = [
        b"".join((_HEAD, *(event_bytes(_row(start + n, each)) for n, each in enumerate(batch)), _TAIL))
        for start, batch in ((s, samples[s : s + RAW_BATCH]) for s in range(0, len(samples), RAW_BATCH))
    ]
    async with stack.connect() as connection:
        for statement in STAGES:
            await connection.execute(statement)
        days = {each.time.date() for each in samples}
        await connection.execute("SET ROLE usage_owner")
        await connection.execute("SELECT system.ensure_usage_days($1::date[])", sorted(days))
        await connection.execute("RESET ROLE")
        await connection.execute("CHECKPOINT")
        started = time.perf_counter()
        for batch in batches:
            async with connection.transaction():
                await connection.copy_to_table(
                    "staged_event", source=io.BytesIO(batch), columns=list(EVENT_COLUMNS), format="binary"
                )
                await connection.execute(_RAW, *(UUID(int=n) for n in (1, 2, 3)))
        return len(samples) / (time.perf_counter() - started)


async def worker_rate(stack: UsageStack, workload: Workload, samples: list[Sample]) -> tuple[float, int]:
    """Events a second of the meter role on a full topic, from its first commit to its last; and its memory."""
    await stack.put_meters()
    await stack.publish_state(workload)
    await stack.preload(samples)
    async with stack.connect() as connection, stack.role("usage-meter") as process:
        await connection.execute("CHECKPOINT")
        first = await _until(connection, stack, 1)
        first_at = time.perf_counter()
        await _until(connection, stack, len(samples))
        return (len(samples) - first) / (time.perf_counter() - first_at), memory_pss(process.pid)


async def _until(connection: asyncpg.Connection, stack: UsageStack, wanted: int) -> int:
    deadline = time.monotonic() + 180
    while (counted := await stack.counted(connection)) < wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{counted} of {wanted} events are counted")
        await asyncio.sleep(0.02)
    return counted


def _row(offset: int, sample: Sample) -> EventRow:
    time_ = microseconds(sample.time)
    assert day_of(time_ // DAY) == sample.time.date()
    tenant, identity = sample.tenant_id.bytes, identity_of(sample.source, sample.id)
    return EventRow(
        tenant + identity,
        tenant,
        identity,
        time_,
        time_ // DAY,
        time_,
        sample.partition,
        offset,
        digest_of(sample.type, time_, {}),
        sample.source,
        sample.id,
        sample.type,
        sample.data.encode(),
        {},
    )
