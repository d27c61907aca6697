"""How fast the meter worker counts what is in the topic, and how fast plain SQL counts the same.

The raw limit is one connection that copies ready-made rows, inserts them with dedupe on the key alone and aggregates
what was inserted in SQL: no decoding, no look at neighbouring days, no conflicts, no queue of changes, no Kafka.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date
from uuid import UUID

import asyncpg
from usage_stack import UsageStack, memory_pss
from workload import Sample, Workload

from usage_service.domain.identity import digest_of, identity_of
from usage_service.domain.instants import DAY, day_of, microseconds
from usage_service.metering.rows import EventRow
from usage_service.metering.staging import EVENT_COLUMNS, STAGES, event_bytes

PROCESSES = int(os.environ.get("BENCH_METER_PROCESSES", "2"))
RAW_BATCH = 20_000
FROM, UNTIL = 0.15, 0.75
"""The part of the events in which every member has work: what is left at the end is the largest tenant's partition."""
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


@dataclass(frozen=True, slots=True)
class Counted:
    """Events a second while every member had work, and from the first commit to the last; and memory in bytes."""

    rate: float
    whole: float
    pss: int


async def raw_limit(stack: UsageStack, samples: Sequence[Sample]) -> float:
    """Events a second of plain SQL from one connection, rows encoded beforehand."""
    batches = [
        b"".join((_HEAD, *(event_bytes(row_of_sample(start + n, each)) for n, each in enumerate(batch)), _TAIL))
        for start, batch in ((s, samples[s : s + RAW_BATCH]) for s in range(0, len(samples), RAW_BATCH))
    ]
    async with stack.connect() as connection:
        for statement in STAGES:
            await connection.execute(statement)
        await make_days(connection, {each.time.date() for each in samples})
        await connection.execute("CHECKPOINT")
        started = time.perf_counter()
        for batch in batches:
            async with connection.transaction():
                await connection.copy_to_table(
                    "staged_event", source=io.BytesIO(batch), columns=list(EVENT_COLUMNS), format="binary"
                )
                await connection.execute(_RAW, *(UUID(int=n) for n in (1, 2, 3)))
        return len(samples) / (time.perf_counter() - started)


async def make_days(connection: asyncpg.Connection, days: set[date]) -> None:
    await connection.execute("SET ROLE usage_owner")
    await connection.execute("SELECT system.ensure_usage_days($1::date[])", sorted(days))
    await connection.execute("RESET ROLE")


async def worker_rate(
    stack: UsageStack, workload: Workload, samples: Sequence[Sample], *, processes: int = PROCESSES
) -> Counted:
    """What the meter role makes of a full topic, in so many processes."""
    await stack.put_meters()
    await stack.publish_state(workload)
    await stack.preload(samples)
    return await counting_rate(stack, len(samples), processes=processes)


async def counting_rate(stack: UsageStack, events: int, *, processes: int = PROCESSES) -> Counted:
    """As `worker_rate`, of so many events that are in the topic and not counted yet."""
    async with AsyncExitStack() as running:
        connection = await running.enter_async_context(stack.connect())
        await connection.execute("CHECKPOINT")
        base = await stack.counted(connection)
        roles = [await running.enter_async_context(stack.role("usage-meter")) for _ in range(processes)]
        first, begun = await until(connection, stack, base + 1), time.perf_counter()
        low, low_at = await until(connection, stack, base + round(FROM * events)), time.perf_counter()
        high, high_at = await until(connection, stack, base + round(UNTIL * events)), time.perf_counter()
        await until(connection, stack, base + events)
        whole = (base + events - first) / (time.perf_counter() - begun)
        return Counted((high - low) / (high_at - low_at), whole, sum(memory_pss(role.pid) for role in roles))


async def until(connection: asyncpg.Connection, stack: UsageStack, wanted: int) -> int:
    """Waits until so many records are counted; returns how many are."""
    deadline = time.monotonic() + 300
    while (counted := await stack.counted(connection)) < wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{counted} of {wanted} events are counted")
        await asyncio.sleep(0.01)
    return counted


def row_of_sample(offset: int, sample: Sample) -> EventRow:
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
