"""A usage service on servers of its own, every part of which can be killed, stopped and started again."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import psutil
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from processes import free_port, is_ready
from servers import UNSAFE

from tenantry.database import create_service_database, migrate
from tenantry.events import KafkaSettings, create_topics
from tenantry.identity import new_api_key
from tenantry.testing import eventually
from tenantry_dev.stack import EmbeddedKafka, EmbeddedPostgres
from tenantry_dev.stack.ports import any_free_port
from usage_service.publishing.ends import TopicEnds

from .entitlements import ALERTS, BALANCES
from .network import HOST, Wire
from .process import Outages, Process
from .state import State

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

T = TypeVar("T")


class Installation:
    """Servers, a migrated database, topics, tenants and processes below `directory`; an async context manager.

    Processes reach PostgreSQL by a wire each, everybody reaches Kafka by one, and an ingest process is reached by one.
    """

    def __init__(self, directory: Path, *, tenants: Sequence[str]) -> None:
        # What is killed here is a process and never the machine.
        self.postgres = EmbeddedPostgres(directory / "postgres", settings=UNSAFE)
        self.kafka = EmbeddedKafka(directory / "kafka", advertised_port=any_free_port())
        self._kafka_wire = Wire(self.kafka.port, self.kafka.advertised_port)
        self.tenants = list(tenants)
        self.hot = self.tenants[:HOT]
        self.meters: list[Process] = []
        self.ingests: list[Process] = []
        self.relays: list[Process] = []
        self._processes: list[Process] = []
        self._outages = Outages()
        self._directory = directory
        self._operator, self._service = new_api_key(), new_api_key()
        self._clients: list[httpx.AsyncClient] = []
        self._ingest_wires: dict[Process, Wire] = {}
        self._numbers = itertools.count()
        # A server notices the death of the thread that started it: these live as long as the servers do.
        self._aside = ThreadPoolExecutor(2)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _begin(self) -> None:
        await self._kafka_wire.join()
        await asyncio.gather(self.aside(self.postgres.start), self.aside(self.kafka.start))
        self._urls = await create_service_database(
            self.postgres.url, "usage", dict.fromkeys(_ROLES, _PASSWORD), name=_DATABASE
        )
        await migrate(self._urls.migrator, "usage")
        self.settings = KafkaSettings(kafka_bootstrap=f"{HOST}:{self._kafka_wire.port}", topic_prefix="chaos.")
        await create_topics(self.settings, only=_TOPICS)
        self._state = State(self.settings, self.tenants, hot=HOT)
        await self._state.publish_all(operator=self._operator, service=self._service)
        for _ in range(2):
            await self._add_ingest()
            self.relays.append(await self._start("usage-relay"))
        for _ in range(2):
            await self.add_meter()
        for client in self._clients:
            await eventually(partial(is_ready, client), within=90)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(each.destroy() for each in self._processes))
        await self._open.aclose()
        await asyncio.gather(self.aside(self.postgres.kill), self.aside(self.kafka.kill))
        for wire in (self._kafka_wire, *self._ingest_wires.values()):
            await wire.cut()
        await self.aside(self.postgres.remove)
        self._aside.shutdown()

    @property
    def crashes(self) -> list[str]:
        """How processes have ended without a fault that could have caused it."""
        return [crash for each in self._processes for crash in each.crashes]

    async def aside(self, work: Callable[[], T]) -> T:
        """Something that blocks, in a thread of the servers' own."""
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

    async def ask(
        self, slug: str, tenant: str, since: datetime, until: datetime, *, window: str = "none"
    ) -> list[dict[str, Any]]:
        """The figures of a meter in [since, until), by HTTP."""
        answer = await self._clients[0].get(
            f"/v1/meters/{slug}/query",
            params={"tenant_id": tenant, "from": since.isoformat(), "to": until.isoformat(), "window": window},
            headers=_key(self._operator),
        )
        assert answer.is_success, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def add_meter(self) -> bool:
        """One more meter worker, if there are not as many as there may be."""
        if len(self.meters) >= _MOST_METERS:
            return False
        self.meters.append(await self._start("usage-meter", USAGE_METER_BATCH="400", USAGE_METER_MEMBERS="2"))
        return True

    async def remove_meter(self, index: int) -> bool:
        """One meter worker less, if it is not the last one."""
        return len(self.meters) > 1 and await self.meters.pop(index).end()

    async def refuse_ingest(self, ingest: Process, seconds: float) -> bool:
        """Answers that are under way are lost, whatever they would have said."""
        wire = self._ingest_wires[ingest]
        await wire.cut()
        await asyncio.sleep(seconds)
        await wire.join()
        return True

    async def kill_postgres(self, away: float) -> None:
        await self._bounce(self.postgres.kill, away, self.postgres.start)

    async def restart_postgres(self, away: float) -> None:
        await self._bounce(self.postgres.stop, away, self.postgres.start)

    async def stop_postgres(self, seconds: float) -> None:
        """Connections stay, and nobody answers."""
        assert self.postgres.pid is not None
        server = psutil.Process(self.postgres.pid)
        with self._outages.one():
            server.suspend()  # first: from here on it has no new children
            children = server.children()
            for each in children:
                each.suspend()
            await asyncio.sleep(seconds)
            for each in (*children, server):
                each.resume()

    async def refuse_postgres(self, seconds: float) -> None:
        """Every connection to the service's database is cut and new ones are refused, as by a network that changed."""
        with self._outages.one():
            await self._administrate(f"ALTER DATABASE {_DATABASE} WITH ALLOW_CONNECTIONS false")
            await self._administrate(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{_DATABASE}'"
            )
            await asyncio.sleep(seconds)
            await self._administrate(f"ALTER DATABASE {_DATABASE} WITH ALLOW_CONNECTIONS true")

    async def kill_kafka(self, away: float) -> None:
        await self._bounce(self.kafka.kill, away, self.kafka.start)

    async def restart_kafka(self, away: float) -> None:
        await self._bounce(self.kafka.stop, away, self.kafka.start)

    async def stop_kafka(self, seconds: float) -> None:
        """The broker accepts connections and answers nobody."""
        assert self.kafka.pid is not None
        with self._outages.one():
            os.kill(self.kafka.pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            os.kill(self.kafka.pid, signal.SIGCONT)

    async def refuse_kafka(self, seconds: float) -> None:
        with self._outages.one():
            await self._kafka_wire.cut()
            await asyncio.sleep(seconds)
            await self._kafka_wire.join()

    async def change_routing(self, choice: float) -> None:
        """A hot tenant gets another number of keys; each process learns of it when it does."""
        await self._state.reroute(int(choice * 1e6) % len(self.hot), int(choice * 1e3))

    async def kill_relays(self) -> None:
        """Whatever a relay does now and then it does at its start."""
        await asyncio.gather(*(each.kill(away=0) for each in self.relays))

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
        try:
            await consumer.start()
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

    async def _bounce(self, end: Callable[[], None], away: float, start: Callable[[], None]) -> None:
        with self._outages.one():
            await self.aside(end)
            await asyncio.sleep(away)
            await self.aside(start)

    async def _add_ingest(self) -> None:
        port = free_port()
        ingest = await self._start("usage-api", USAGE_PORT=str(port))
        wire = self._ingest_wires[ingest] = Wire(port)
        await wire.join()
        self.ingests.append(ingest)
        headers = {"Content-Type": "application/cloudevents-batch+json", **_key(self._service)}
        client = httpx.AsyncClient(base_url=f"http://{HOST}:{wire.port}", headers=headers, timeout=20)
        self._clients.append(await self._open.enter_async_context(client))

    async def _start(self, role: str, **settings: str) -> Process:
        wire = Wire(self.postgres.port)
        await wire.join()
        environment = {
            **os.environ,
            "USAGE_DATABASE_URL": _by(wire, self._urls.service),
            "USAGE_SYSTEM_DATABASE_URL": _by(wire, self._urls.system),
            "USAGE_MIGRATOR_DATABASE_URL": _by(wire, self._urls.migrator),
            "TENANTRY_KAFKA_BOOTSTRAP": self.settings.kafka_bootstrap,
            "TENANTRY_TOPIC_PREFIX": self.settings.topic_prefix,
            "TENANTRY_ISSUER": "http://tenant.test",
            "TENANTRY_STATE_DIR": str(self._directory / "state"),
            "TENANTRY_LOG_LEVEL": "WARNING",
            **settings,
        }
        log = self._directory / f"{role}-{next(self._numbers)}.log"
        process = Process(role, environment, log, database=wire, outages=self._outages)
        self._processes.append(process)
        return process


def _key(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def _in_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _by(wire: Wire, url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{wire.port}"))
