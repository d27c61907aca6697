"""The usage service as tests run it: real PostgreSQL and Kafka, local state given by hand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import count
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from local_state import GivenState
from processes import SERVE

from tenantry import Tenancy, Tenant, Tier
from tenantry._settings import TenancySettings
from tenantry.database import Databases
from tenantry.events import KafkaSettings, TransactionalConsumer, UsageProducer, create_topics, partition_key
from tenantry.identity import Scope
from tenantry.testing import ServiceDatabase
from usage_service.app import create_app
from usage_service.metering.days import OwnedDays
from usage_service.metering.parking import nudge_parked
from usage_service.metering.worker import GROUP, NUDGE, TOPIC, MeterWorker
from usage_service.publishing.cuts import CutKeeper
from usage_service.publishing.ends import TopicEnds
from usage_service.publishing.rollups import RollupRelay
from usage_service.publishing.watermark import advance_watermark
from usage_service.settings import UsageSettings

TOPICS = (
    "usage.events.v1",
    "usage.events.v1.dlq.v1",
    "usage.rollups.v1",
    "tenant.state.v1",
    "tenant.config.v1",
    "platform.state.v1",
    "tenant.credentials.v1",
    "billing.state.v1",
)
ISSUER = "http://tenant.test"
NUMBERS = count()
"""Of the services that a process has opened: one's topics are its own."""
API_CALLS = {
    "event_type": "http.request",
    "aggregation": "count",
    "group_by": {"method": "$.method", "path": "$.path"},
}
BANDWIDTH = {"event_type": "http.request", "aggregation": "sum", "value": "$.bytes", "unit": "byte"}


@dataclass
class Usage:
    """A usage service on a database and a topic prefix of its own."""

    database: ServiceDatabase
    kafka: KafkaSettings
    state: GivenState = field(default_factory=GivenState)
    transport: httpx.ASGITransport = field(init=False)
    http: httpx.AsyncClient = field(init=False)
    databases: Databases = field(init=False)
    worked: bool = False
    """Whether it has had consumers, or relays, which leave groups and transactions behind."""

    @property
    def operator(self) -> dict[str, str]:
        return self.state.key(Scope.PLATFORM)

    @property
    def service(self) -> dict[str, str]:
        return self.state.key(Scope.SERVICE)

    def tenant_key(self, tenant: Tenant) -> dict[str, str]:
        return self.state.key(Scope.TENANT_WRITE, Scope.TENANT_READ, tenant=tenant)

    @asynccontextmanager
    async def running(self, **settings: Any):
        tenancy = Tenancy(
            "usage",
            TenancySettings(issuer=ISSUER),
            source=self.state,
            databases=Databases("usage", self.database.settings(), follow_placement=False),
        )
        app = create_app(UsageSettings(**settings), tenancy, self.kafka)
        self.transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            self.database.databases(follow_placement=False, system_pool_size=20) as self.databases,
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=self.transport, base_url="http://usage.test") as self.http,
        ):
            yield self

    def worker(self, **options: Any) -> MeterWorker:
        return MeterWorker(
            directory=self.state.directory,
            days=OwnedDays(self.database.urls.migrator),
            group=self.kafka.group(GROUP),
            topic=self.kafka.topic(TOPIC),
            **options,
        )

    def consumer(self, worker: MeterWorker) -> TransactionalConsumer:
        return TransactionalConsumer(
            kafka=self.kafka,
            engine=self.databases.system,
            group=GROUP,
            topics=[TOPIC],
            handle=worker.handle,
            max_records=5_000,
            max_wait_ms=20,
            contiguous=True,
        )

    @asynccontextmanager
    async def metering(self, *, members: int = 2, **options: Any):
        """The meter role inside this process, with parked records looked after."""
        self.worked = True
        work = [self.consumer(self.worker(**options)).run() for _ in range(members)]
        async with running(*work, nudge_parked(self.databases.system, self.kafka, TOPIC, NUDGE)):
            yield

    @asynccontextmanager
    async def relaying(self):
        """The relay role inside this process."""
        self.worked = True
        engine = self.databases.system
        async with running(
            RollupRelay(engine, self.kafka).run(),
            CutKeeper(engine, self.kafka, group=GROUP, topic=TOPIC).run(),
            advance_watermark(engine, self.kafka, group=GROUP, topic=TOPIC),
        ):
            yield

    async def put_meter(self, slug: str, definition: dict[str, Any]) -> dict[str, Any]:
        response = await self.http.put(f"/v1/meters/{slug}", json=definition, headers=self.operator)
        assert response.status_code == 200, response.text
        return response.json()

    async def send(self, *events: dict[str, Any], headers: dict[str, str] | None = None, **params: str):
        return await self.http.post(
            "/v1/events",
            content=json.dumps(events),
            params=params,
            headers={"Content-Type": "application/cloudevents-batch+json", **(headers or self.service)},
        )

    async def query(self, tenant: Tenant, slug: str, **params: Any) -> dict[str, Any]:
        response = await self.http.get(
            f"/v1/meters/{slug}/query", params={"tenant_id": str(tenant.id), **params}, headers=self.operator
        )
        assert response.status_code == 200, response.text
        return response.json()

    async def counted(self) -> bool:
        """Whether everything that Kafka has is counted and nothing is parked."""
        ends = await end_offsets(self.kafka, TOPIC)
        async with self.database.connect() as connection:
            rows = await connection.fetch("SELECT partition, next_offset FROM system.consumer_offset")
            parked = await connection.fetchval("SELECT count(*) FROM system.parked_record")
        done = {row["partition"]: row["next_offset"] for row in rows}
        return not parked and all(done.get(partition, 0) >= end for partition, end in ends.items() if end)

    async def fetch(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        async with self.database.connect() as connection:
            return await connection.fetch(statement, *values)

    async def publish_state(self, tenants: list[Tenant], tiers: list[Tier]) -> None:
        """What the tenant service would have published, for processes that read it from Kafka."""
        async with producer(self.kafka) as kafka:
            for tier in tiers:
                key = f"tier/{tier.name}".encode()
                await kafka.send(self.kafka.topic("platform.state.v1"), key=key, value=msgspec.json.encode(tier))
            for tenant in tenants:
                value = msgspec.json.encode(tenant)
                await kafka.send(self.kafka.topic("tenant.state.v1"), key=str(tenant.id).encode(), value=value)

    async def produce(self, events: list[bytes], tenants: list[UUID]) -> None:
        """Events straight into the topic, as another producer would, past the checks of the ingest."""
        sender = UsageProducer(self.kafka)
        await sender.start()
        try:
            await sender.send([(partition_key(tenant), event) for event, tenant in zip(events, tenants, strict=True)])
        finally:
            await sender.stop()

    def environment(self) -> dict[str, str]:
        """The environment of a process of this service."""
        self.worked = True
        return {
            **os.environ,
            **self.database.environment(),
            "TENANTRY_KAFKA_BOOTSTRAP": self.kafka.kafka_bootstrap,
            "TENANTRY_TOPIC_PREFIX": self.kafka.topic_prefix,
            "TENANTRY_ISSUER": ISSUER,
        }


@asynccontextmanager
async def running(*work: Any):
    """Runs coroutines beside the block; one that fails fails the test."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def producer(kafka: KafkaSettings):
    client = AIOKafkaProducer(**kafka.client_options(), acks="all")
    await client.start()
    try:
        yield client
        await client.flush()
    finally:
        await client.stop()


async def end_offsets(kafka: KafkaSettings, topic: str) -> dict[int, int]:
    ends = TopicEnds(kafka, topic)
    try:
        return await ends.end_offsets()
    finally:
        await ends.close()


async def are_empty(kafka: KafkaSettings) -> bool:
    """Whether nobody has written to any topic of the prefix."""
    admin = AIOKafkaAdminClient(**kafka.client_options())
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if name.startswith(kafka.topic_prefix)]
    finally:
        await admin.close()
    consumer = AIOKafkaConsumer(*names, **kafka.client_options())
    await consumer.start()
    try:
        return not any((await consumer.end_offsets(consumer.assignment())).values())
    finally:
        await consumer.stop()


class RoleProcess:
    """A role of the service as a process that can be killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, role: str, environment: dict[str, str]) -> RoleProcess:
        process = await asyncio.create_subprocess_exec(
            *SERVE,
            role,
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return cls(process)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def kill(self) -> None:
        if self.alive:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()


async def open_usage(database: ServiceDatabase, bootstrap: str, prefix: str) -> Usage:
    kafka = KafkaSettings(kafka_bootstrap=bootstrap, topic_prefix=prefix)
    await create_topics(kafka, only=TOPICS)
    return Usage(database, kafka)


@cache
def first_sent(tenant_id: UUID, number: int) -> str:
    """When this event was first made: a copy made in a later second would be another event under the same identity."""
    return datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def event(tenant: Tenant, number: int, **changes: Any) -> dict[str, Any]:
    """A plain event; the same number is the same identity."""
    return {
        "specversion": "1.0",
        "id": f"e-{number}",
        "source": "tests",
        "type": "http.request",
        "subject": str(tenant.id),
        "time": first_sent(tenant.id, number),
        "data": {"method": "GET", "path": "/a", "bytes": 10},
        **changes,
    }
