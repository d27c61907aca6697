"""A usage service on servers of its own, every part of which can be killed, stopped and started again."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg
import httpx
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from processes import SERVE, free_port, is_ready

from tenantry import Routing, Tenant, TenantId, TenantStatus, Tier, uuid7
from tenantry.database import create_service_database, migrate
from tenantry.events import KafkaSettings, create_topics
from tenantry.identity import Credential, Scope, new_api_key, secret_hash
from tenantry.testing import eventually
from tenantry_dev.stack import EmbeddedKafka, EmbeddedPostgres
from usage_service.publishing.ends import TopicEnds

from .entitlements import ALERTS, BALANCES

EVENTS = "usage.events.v1"
ROLLUPS = "usage.rollups.v1"
_TOPICS = (
    EVENTS,
    f"{EVENTS}.dlq.v1",
    ROLLUPS,
    ALERTS,
    BALANCES,
    "tenant.state.v1",
    "tenant.config.v1",
    "platform.state.v1",
    "tenant.credentials.v1",
    "tenant.requests.v1",
    "tenant.acks.v1",
)
_ROLES = ("migrator", "service", "system", "provisioner", "backup")
_PASSWORD = "only-for-tests"
_DATABASE = "chaos"
_MOST_METERS = 3
HOT = 5
"""As many tenants are spread over keys, one after the other and again and again."""
_BUCKETS = (1, 2, 4, 12)
_REST_SECONDS = 0.5

T = TypeVar("T")


class Process:
    """A role as a process under supervision: whatever ends it, it starts again until it is told to stay away.

    One that starts while its servers are away may give up; whoever supervises it in production starts it again, too.
    """

    def __init__(self, role: str, environment: dict[str, str], log: Path) -> None:
        self.role = role
        self._environment = environment
        self._log = log
        self._rest = _REST_SECONDS
        self._over = False
        self._process: asyncio.subprocess.Process | None = None
        self._supervision = asyncio.create_task(self._supervise())

    async def kill(self, *, away: float) -> None:
        self._rest = away
        self._signal(signal.SIGKILL)
        await asyncio.sleep(away)

    async def pause(self, seconds: float) -> None:
        self._signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._signal(signal.SIGCONT)

    async def end(self) -> None:
        """As a deployment ends a process: it may finish what it is at."""
        self._over = True
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(self._supervision), 15)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._supervision

    async def _supervise(self) -> None:
        while not self._over:
            with self._log.open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *SERVE, self.role, env=self._environment, stdout=output, stderr=output
                )
            await self._process.wait()
            self._process = None
            rest, self._rest = self._rest, _REST_SECONDS
            if not self._over:
                await asyncio.sleep(rest)

    def _signal(self, number: signal.Signals) -> None:
        # Between two lives there is nothing to hit.
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


class Installation:
    """Servers, a migrated database, topics, tenants and processes below `directory`; an async context manager."""

    def __init__(self, directory: Path, *, tenants: int) -> None:
        self.postgres = EmbeddedPostgres(directory / "postgres")
        self.kafka = EmbeddedKafka(directory / "kafka")
        self.tenants = [str(uuid7()) for _ in range(tenants)]
        self.hot = self.tenants[:HOT]
        self.meters: list[Process] = []
        self.ingests: list[Process] = []
        self.relays: list[Process] = []
        self._directory = directory
        self._operator, self._service = new_api_key(), new_api_key()
        self._clients: list[httpx.AsyncClient] = []
        self._numbers = itertools.count()
        # A server notices the death of the thread that started it, so one thread lives as long as they do.
        self._aside = ThreadPoolExecutor(1)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await asyncio.gather(self.aside(self.postgres.start), self.aside(self.kafka.start))
        self._urls = await create_service_database(
            self.postgres.url, "usage", dict.fromkeys(_ROLES, _PASSWORD), name=_DATABASE
        )
        await migrate(self._urls.migrator, "usage")
        self.settings = KafkaSettings(kafka_bootstrap=self.kafka.bootstrap, topic_prefix="chaos.")
        await create_topics(self.settings, only=_TOPICS)
        await self._publish_state()
        for _ in range(2):
            await self._add_ingest()
            self.relays.append(self._start("usage-relay"))
        for _ in range(2):
            self.add_meter()
        for client in self._clients:
            await eventually(partial(is_ready, client), within=90)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(each.end() for each in (*self.ingests, *self.meters, *self.relays)))
        await self._open.aclose()
        await asyncio.gather(self.aside(self.postgres.kill), self.aside(self.kafka.kill))
        await self.aside(self.postgres.remove)
        self._aside.shutdown()

    async def aside(self, work: Callable[[], T]) -> T:
        """Something that blocks, in the servers' own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, work)

    def client(self) -> httpx.AsyncClient:
        """A way to some process of the ingest, as a service that may write any tenant's usage."""
        return self._clients[next(self._numbers) % len(self._clients)]

    async def put_meter(self, slug: str, definition: dict[str, Any]) -> None:
        answer = await self._clients[0].put(f"/v1/meters/{slug}", json=definition, headers=_key(self._operator))
        assert answer.is_success, answer.text

    async def put_quota(self, tenant: str, meter: str, quota: dict[str, Any]) -> None:
        answer = await self._clients[0].put(
            f"/v1/tenants/{tenant}/quotas/{meter}",
            json=quota,
            headers={"Content-Type": "application/json", **_key(self._operator)},
        )
        assert answer.is_success, answer.text

    async def total(self, slug: str, tenant: str, since: datetime, until: datetime) -> str | None:
        """The figure of a meter in [since, until), by HTTP."""
        answer = await self._clients[0].get(
            f"/v1/meters/{slug}/query",
            params={"tenant_id": tenant, "from": since.isoformat(), "to": until.isoformat()},
            headers=_key(self._operator),
        )
        assert answer.is_success, answer.text
        items = answer.json()["items"]
        return items[0]["value"] if items else None

    def add_meter(self) -> None:
        """One more meter worker, if there are not as many as there may be."""
        if len(self.meters) < _MOST_METERS:
            self.meters.append(self._start("usage-meter", USAGE_METER_BATCH="400", USAGE_METER_MEMBERS="2"))

    async def remove_meter(self, index: int) -> None:
        """One meter worker less, if it is not the last one."""
        if len(self.meters) > 1:
            await self.meters.pop(index).end()

    async def kill_postgres(self, away: float) -> None:
        await self.aside(self.postgres.kill)
        await asyncio.sleep(away)
        await self.aside(self.postgres.start)

    async def refuse_postgres(self, seconds: float) -> None:
        """Every connection to the service's database is cut and new ones are refused, as by a network that changed."""
        await self._administrate(f"ALTER DATABASE {_DATABASE} WITH ALLOW_CONNECTIONS false")
        await self._administrate(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{_DATABASE}'"
        )
        await asyncio.sleep(seconds)
        await self._administrate(f"ALTER DATABASE {_DATABASE} WITH ALLOW_CONNECTIONS true")

    async def kill_kafka(self, away: float) -> None:
        await self.aside(self.kafka.kill)
        await asyncio.sleep(away)
        await self.aside(self.kafka.start)

    async def stop_kafka(self, seconds: float) -> None:
        """The broker accepts connections and answers nobody."""
        assert self.kafka.pid is not None
        os.kill(self.kafka.pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(self.kafka.pid, signal.SIGCONT)

    async def change_routing(self, choice: float) -> None:
        """A hot tenant gets another number of keys; each process learns of it when it does."""
        number = int(choice * 1e6) % len(self.hot)
        tenant = self._documents[number]
        buckets = [each for each in _BUCKETS if each != tenant.routing.buckets][int(choice * 1e3) % 3]
        tenant = msgspec.structs.replace(tenant, routing=Routing(buckets=buckets), version=tenant.version + 1)
        self._documents[number] = tenant
        await self._publish([("tenant.state.v1", str(tenant.id), tenant)])

    async def fetch(self, statement: str) -> Sequence[asyncpg.Record]:
        """Rows of the service's database, past every policy."""
        connection = await asyncpg.connect(_in_database(self.postgres.url, _DATABASE))
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    async def read(self, topic: str) -> list[ConsumerRecord]:
        """Everything that a reader of the topic sees, in the order of partition and offset."""
        consumer = AIOKafkaConsumer(
            self.settings.topic(topic),
            **self.settings.client_options(),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            ends = await consumer.end_offsets(consumer.assignment())
            found: list[ConsumerRecord] = []
            while any([await consumer.position(each) < end for each, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += records
            return sorted(found, key=lambda each: (each.partition, each.offset))
        finally:
            await consumer.stop()

    async def settled(self) -> bool:
        """Whether all that Kafka has is counted, nothing is parked, and every changed rollup is published."""
        topic = TopicEnds(self.settings, EVENTS)
        try:
            ends = await topic.end_offsets()
        finally:
            await topic.close()
        rows = await self.fetch(
            "SELECT partition, next_offset FROM system.consumer_offset WHERE group_id LIKE '%usage-meter'"
        )
        counted = {row["partition"]: row["next_offset"] for row in rows}
        if any(counted.get(partition, 0) < end for partition, end in ends.items()):
            return False
        [left] = await self.fetch(
            """
            SELECT (SELECT count(*) FROM system.parked_record) + (SELECT count(*) FROM system.rollup_change)
                 + (SELECT count(*) FROM system.balance_change) + (SELECT count(*) FROM system.outbox) AS count
            """
        )
        return left["count"] == 0

    async def _administrate(self, statement: str) -> None:
        connection = await asyncpg.connect(self.postgres.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _add_ingest(self) -> None:
        port = free_port()
        self.ingests.append(self._start("usage-api", USAGE_PORT=str(port)))
        headers = {"Content-Type": "application/cloudevents-batch+json", **_key(self._service)}
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20)
        self._clients.append(await self._open.enter_async_context(client))

    def _start(self, role: str, **settings: str) -> Process:
        environment = {
            **os.environ,
            "USAGE_DATABASE_URL": self._urls.service,
            "USAGE_SYSTEM_DATABASE_URL": self._urls.system,
            "USAGE_MIGRATOR_DATABASE_URL": self._urls.migrator,
            "TENANTRY_KAFKA_BOOTSTRAP": self.kafka.bootstrap,
            "TENANTRY_TOPIC_PREFIX": self.settings.topic_prefix,
            "TENANTRY_ISSUER": "http://tenant.test",
            "TENANTRY_LOG_LEVEL": "WARNING",
            **settings,
        }
        log = self._directory / f"{role}-{next(self._numbers)}.log"
        return Process(role, environment, log)

    async def _publish_state(self) -> None:
        born = datetime(2026, 1, 1, tzinfo=UTC)
        records: list[tuple[str, str, object]] = [("platform.state.v1", "tier/chaos", Tier(name="chaos", version=1))]
        records += [
            ("tenant.credentials.v1", name, _credential(name, secret, scope))
            for name, secret, scope in (
                ("operator", self._operator, Scope.PLATFORM),
                ("service", self._service, Scope.SERVICE),
            )
        ]
        self._documents = [
            Tenant(
                id=TenantId(UUID(tenant_id)),
                slug=f"chaos-{number}",
                name="Chaos",
                status=TenantStatus.ACTIVE,
                tier="chaos",
                version=1,
                created_at=born,
            )
            for number, tenant_id in enumerate(self.tenants)
        ]
        records += [("tenant.state.v1", str(tenant.id), tenant) for tenant in self._documents]
        await self._publish(records)

    async def _publish(self, records: Sequence[tuple[str, str, object]]) -> None:
        producer = AIOKafkaProducer(**self.settings.client_options(), acks="all")
        await producer.start()
        try:
            for topic, key, value in records:
                await producer.send_and_wait(
                    self.settings.topic(topic), key=key.encode(), value=msgspec.json.encode(value)
                )
        finally:
            await producer.stop()


def _credential(name: str, secret: str, scope: Scope) -> Credential:
    return Credential(id=name, kind="api_key", hash=secret_hash(secret), subject=name, scopes=frozenset({scope}))


def _key(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def _in_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
