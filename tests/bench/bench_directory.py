"""How long a service needs until it knows 100,000 tenants, and what they weigh, from the topic and from a table.

Each source is read by a process of its own, which has imported everything and then measures: the time until `start`
returns, how much its memory has grown, and how long a change takes that finds all of them there.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from pathlib import Path

import asyncpg
import psutil
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from report import Row, Servers, row

from tenantry import uuid7
from tenantry.directory import PolledDirectory, TenantQuery
from tenantry.events import Event, KafkaDirectory, KafkaSettings, create_topics, encode
from tenantry.testing import TenantFactory

TENANTS = 100_000
GOAL_SECONDS = 5.0
GOAL_MIB = 200.0
TOPICS = ["tenant.state.v1", "tenant.config.v1", "platform.state.v1", "tenant.credentials.v1"]
QUERY = "SELECT id, slug, name, status, tier, updated_at FROM bench_company"
TABLE = f"""
    CREATE TABLE bench_company (id bigint PRIMARY KEY, slug text NOT NULL, name text NOT NULL, status text NOT NULL,
                                tier text NOT NULL, updated_at timestamptz NOT NULL);
    INSERT INTO bench_company
    SELECT n, 'company-' || n, 'Company ' || n, 'active', 'standard', now() - n * interval '1 minute'
      FROM generate_series(1, {TENANTS}) AS n;
"""


async def run(servers: Servers) -> list[Row]:
    """Seconds and MiB of both sources; the limits are the goals."""
    return [*await _from_topic(servers), *await _from_table(servers)]


async def _from_topic(servers: Servers) -> list[Row]:
    kafka = KafkaSettings(kafka_bootstrap=servers.kafka, topic_prefix=f"bench-{secrets.token_hex(4)}.")
    await create_topics(kafka, only=TOPICS)
    try:
        await _fill(kafka)
        measured = await _measure("topic", kafka.kafka_bootstrap, kafka.topic_prefix)
    finally:
        admin = AIOKafkaAdminClient(**kafka.client_options())
        await admin.start()
        await admin.delete_topics([kafka.topic(topic) for topic in TOPICS])
        await admin.close()
    return _rows("topic", measured)


async def _fill(kafka: KafkaSettings) -> None:
    make = TenantFactory()
    topic = kafka.topic("tenant.state.v1")
    async with AIOKafkaProducer(**kafka.client_options(), max_batch_size=1 << 20, linger_ms=20) as producer:
        for _ in range(TENANTS):
            tenant = make(metadata={"crm": secrets.token_hex(8)})
            event = Event(
                id=uuid7(), type="tenant.state.v1", source="bench", key=str(tenant.id), tenant_id=tenant.id,
                time=tenant.created_at, data=tenant, version=1,
            )  # fmt: skip
            key, value, headers = encode(event)
            await producer.send(topic, key=key, value=value, headers=headers)


async def _from_table(servers: Servers) -> list[Row]:
    name = f"bench_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(servers.postgres)
    await admin.execute(f"CREATE DATABASE {name}")
    url = servers.postgres.rpartition("/")[0] + f"/{name}"
    try:
        own = await asyncpg.connect(url)
        await own.execute(TABLE)
        await own.close()
        measured = await _measure("table", url)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()
    return _rows("table", measured)


def _rows(source: str, measured: dict[str, float]) -> list[Row]:
    known = {"tenants": measured["tenants"]}
    rows = [
        row(
            f"directory_{source}_start",
            measured["seconds"],
            "s",
            limit=GOAL_SECONDS,
            cpu=round(measured["cpu"], 2),
            **known,
        ),
        row(f"directory_{source}_memory", measured["mib"], "MiB", limit=GOAL_MIB, **known),
    ]
    if "change_ms" in measured:
        rows.append(row(f"directory_{source}_change", measured["change_ms"], "ms", **known))
    return rows


async def _measure(*arguments: str) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__)), *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the measured process ended with {process.returncode}")
    measured: dict[str, float] = json.loads(output.splitlines()[-1])  # logs come before it
    return measured


async def _read_topic(bootstrap: str, prefix: str) -> dict[str, float]:
    source = KafkaDirectory(KafkaSettings(kafka_bootstrap=bootstrap, topic_prefix=prefix))
    return await _timed(source)


async def _read_table(url: str) -> dict[str, float]:
    source = PolledDirectory(TenantQuery(url, QUERY, updated_at="updated_at"), interval=3600)
    measured = await _timed(source, stop=False)
    began = time.perf_counter()
    await source.refresh()
    measured["change_ms"] = (time.perf_counter() - began) * 1_000
    await source.stop()
    return measured


async def _timed(source: KafkaDirectory | PolledDirectory, *, stop: bool = True) -> dict[str, float]:
    process = psutil.Process(os.getpid())
    before, began, worked = process.memory_info().rss, time.perf_counter(), time.process_time()
    await source.start()
    seconds, cpu, after = time.perf_counter() - began, time.process_time() - worked, process.memory_info().rss
    if stop:
        await source.stop()
    return {"tenants": len(source.directory), "seconds": seconds, "cpu": cpu, "mib": (after - before) / (1 << 20)}


if __name__ == "__main__":
    import uvloop

    source, *given = sys.argv[1:]
    result = uvloop.run(_read_topic(*given) if source == "topic" else _read_table(*given))
    sys.stdout.write(f"\n{json.dumps(result)}")
