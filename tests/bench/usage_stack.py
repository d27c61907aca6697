"""A usage service for benches: a database and topics of its own, roles as processes, a load generator."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import httpx
import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from load import post
from report import Servers
from workload import METERS, Sample, Workload

from tenantry import Tenant, TenantStatus, Tier, uuid7
from tenantry.database import ServiceUrls, create_service_database, migrate
from tenantry.events import KafkaSettings, UsageProducer, create_topics, partition_key
from tenantry.identity import Credential, Scope, new_api_key, secret_hash

PASSWORD = "only-for-tests"
BATCH = 100
MARK = b"bench/########"
ROLES = ("migrator", "service", "system", "provisioner", "backup")
TOPICS = (
    "usage.events.v1",
    "usage.events.v1.dlq.v1",
    "usage.rollups.v1",
    "tenant.state.v1",
    "tenant.config.v1",
    "platform.state.v1",
    "tenant.credentials.v1",
    "tenant.requests.v1",
    "tenant.acks.v1",
    "billing.state.v1",
    "usage.alerts.v1",
    "usage.balances.v1",
)
METER = """
INSERT INTO system.meter (id, slug, version, event_type, aggregation, value, group_by, filter, unit, since, created_at)
VALUES ($1, $2, 1, $3, $4, $5, $6, '{}', $7, 1, now())
"""
_COUNTED = """
SELECT COALESCE(sum(next_offset), 0)::bigint FROM system.consumer_offset WHERE topic LIKE '%usage.events.v1'
"""


@dataclass
class UsageStack:
    servers: Servers
    name: str
    urls: ServiceUrls
    kafka: KafkaSettings
    secret: str = field(default_factory=new_api_key)
    port: int = 18502
    state: str = ".tenantry/state"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "USAGE_DATABASE_URL": self.urls.service,
            "USAGE_SYSTEM_DATABASE_URL": self.urls.system,
            "USAGE_MIGRATOR_DATABASE_URL": self.urls.migrator,
            "USAGE_PORT": str(self.port),
            "TENANTRY_KAFKA_BOOTSTRAP": self.kafka.kafka_bootstrap,
            "TENANTRY_TOPIC_PREFIX": self.kafka.topic_prefix,
            "TENANTRY_ISSUER": "http://tenant.bench",
            "TENANTRY_STATE_DIR": self.state,
            "TENANTRY_LOG_LEVEL": "WARNING",
        }

    async def publish_state(self, workload: Workload) -> None:
        """Tenants, their tier (without an age limit) and a service's credential, as their owner publishes them."""
        born = datetime(2026, 1, 1, tzinfo=UTC)
        tier = Tier(name="bench", version=1, max_event_age_seconds=None)
        credential = Credential(
            id="bench",
            kind="api_key",
            hash=secret_hash(self.secret),
            subject="bench",
            scopes=frozenset({Scope.SERVICE}),
        )
        producer = AIOKafkaProducer(**self.kafka.client_options(), acks="all", linger_ms=5)
        await producer.start()
        try:
            topic = self.kafka.topic
            await producer.send(topic("platform.state.v1"), key=b"tier/bench", value=msgspec.json.encode(tier))
            await producer.send(topic("tenant.credentials.v1"), key=b"bench", value=msgspec.json.encode(credential))
            for number, tenant_id in enumerate(workload.tenant_ids):
                tenant = Tenant(
                    id=tenant_id,
                    slug=f"bench-{number}",
                    name="Bench",
                    status=TenantStatus.ACTIVE,
                    tier="bench",
                    version=1,
                    created_at=born,
                )
                key, value = str(tenant_id).encode(), msgspec.json.encode(tenant)
                await producer.send(topic("tenant.state.v1"), key=key, value=value)
            await producer.flush()
        finally:
            await producer.stop()

    async def put_meters(self) -> None:
        async with self.connect() as connection:
            for slug, meter in METERS.items():
                group_by = msgspec.json.encode(meter.get("group_by", {})).decode()
                values = (meter["event_type"], meter["aggregation"], meter.get("value"), group_by, meter["unit"])
                await connection.execute(METER, uuid7(), slug, *values)
            await connection.execute("UPDATE system.meter_catalogue SET version = 1")

    async def preload(self, samples: Sequence[Sample], *, buckets: int = 1) -> float:
        """Puts the events into the topic, under so many keys a tenant; returns events a second of the producer."""
        producer = UsageProducer(self.kafka)
        await producer.start()
        events = [
            (partition_key(sample.tenant_id, buckets, sample.source, sample.id), sample.cloudevent())
            for sample in samples
        ]
        chunks = [events[start : start + 1_000] for start in range(0, len(events), 1_000)]
        started = time.perf_counter()
        try:
            for group in range(0, len(chunks), 20):
                await asyncio.gather(*(producer.send(chunk) for chunk in chunks[group : group + 20]))
            return len(events) / (time.perf_counter() - started)
        finally:
            await producer.stop()

    async def counted(self, connection: asyncpg.Connection) -> int:
        """Records of usage.events.v1 whose effect is committed."""
        total: int = await connection.fetchval(_COUNTED)
        return total

    async def ready(self) -> None:
        """Waits until the service's API answers that it is."""
        async with httpx.AsyncClient() as client:
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == HTTPStatus.OK:
                        return
                await asyncio.sleep(0.1)
        raise TimeoutError("the usage service does not become ready")

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(in_database(self.servers.postgres, self.name))
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def role(self, *names: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A process with these roles, stopped at the end."""
        chosen = [part for name in names for part in ("--role", name)]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from tenantry.cli import main; main()",
            "serve",
            *chosen,
            env=self.environment | settings,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def usage_stack(servers: Servers) -> AsyncIterator[UsageStack]:
    """A migrated database, the topics and a directory for what is archived, removed at the end."""
    name = f"bench_{uuid4().hex[:8]}"
    urls = await create_service_database(servers.postgres, "usage", dict.fromkeys(ROLES, PASSWORD), name=name)
    kafka = KafkaSettings(kafka_bootstrap=servers.kafka, topic_prefix=f"{name}.")
    try:
        await migrate(urls.migrator, "usage")
        await create_topics(kafka, only=TOPICS)
        with TemporaryDirectory(prefix="tenantry-bench-", ignore_cleanup_errors=True) as state:
            yield UsageStack(servers, name, urls, kafka, state=state)
    finally:
        await _remove(servers, name, kafka)


async def _remove(servers: Servers, name: str, kafka: KafkaSettings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    await admin.start()
    try:
        await admin.delete_topics(
            [topic for topic in await admin.list_topics() if topic.startswith(kafka.topic_prefix)]
        )
    finally:
        await admin.close()
    connection = await asyncpg.connect(servers.postgres)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await connection.close()


def batch_requests(stack: UsageStack, samples: Iterable[Sample], *, source: bytes = b"bench/api") -> list[bytes]:
    """Whole requests of `BATCH` events each, all of one source."""
    events = iter(sample.cloudevent().replace(b"bench/api", source) for sample in samples)
    requests = []
    while batch := list(islice(events, BATCH)):
        body = b"[" + b",".join(batch) + b"]"
        requests.append(post(body, "application/cloudevents-batch+json", stack.secret, stack.port))
    return requests


def ever_new(requests: Sequence[bytes]) -> Iterator[bytes]:
    """The requests, made with `source=MARK`, again and again: each time round of a source of its own, so all new."""
    for number in count():
        source = b"bench/%08d" % number
        for request in requests:
            yield request.replace(MARK, source)


def in_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def sample_memory(seconds: float, *pids: int) -> list[int]:
    """The memory of processes together, every so many seconds until it is cancelled, and once more then."""
    pss: list[int] = []
    try:
        while True:
            pss.append(sum(map(memory_pss, pids)))
            await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        pss.append(sum(map(memory_pss, pids)))
        return pss


def memory_pss(pid: int) -> int:
    """Bytes of a process: its share of every page it maps."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
