"""A database with the backbone's tables and topics of its own for each test."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import aiokafka.client
import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tenantry.database import RoleNames, backbone_tables
from tenantry.events import KafkaSettings


@dataclass
class Broker:
    """Kafka as a test sees it: topics by their short names, under a prefix of the test's own."""

    settings: KafkaSettings
    topics: list[str] = field(default_factory=list)

    async def create(self, name: str, partitions: int = 1, **config: str) -> str:
        admin = AIOKafkaAdminClient(**self.settings.client_options())
        try:
            await admin.start()
            topic = self.settings.topic(name)
            await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])
        finally:
            await admin.close()
        self.topics.append(topic)
        return topic

    async def delete(self) -> None:
        admin = AIOKafkaAdminClient(**self.settings.client_options())
        try:
            await admin.start()
            existing = await admin.list_topics()
            await admin.delete_topics([name for name in existing if name.startswith(self.settings.topic_prefix)])
        finally:
            await admin.close()

    async def write(self, name: str, values: Sequence[bytes | None], *, key: bytes = b"k", partition: int = 0) -> None:
        async with AIOKafkaProducer(**self.settings.client_options(), acks="all") as producer:
            for value in values:
                await producer.send(self.settings.topic(name), value=value, key=key, partition=partition)
            await producer.flush()

    async def send_keys(self, name: str, keys: Iterable[bytes]) -> None:
        """One record for each key, wherever the client's own partitioner puts it."""
        async with AIOKafkaProducer(**self.settings.client_options()) as producer:
            for key in keys:
                await producer.send_and_wait(self.settings.topic(name), key=key)

    async def write_in_transaction(self, name: str, values: Sequence[bytes | None], *, key: bytes = b"k") -> None:
        options = self.settings.client_options() | {"transactional_id": f"{self.settings.topic_prefix}writer"}
        async with AIOKafkaProducer(**options) as producer, producer.transaction():
            for value in values:
                await producer.send(self.settings.topic(name), value=value, key=key)

    async def config(self, name: str) -> dict[str, str]:
        admin = AIOKafkaAdminClient(**self.settings.client_options())
        try:
            await admin.start()
            resource = ConfigResource(ConfigResourceType.TOPIC, self.settings.topic(name))
            (response,) = await admin.describe_configs([resource])
        finally:
            await admin.close()
        return {entry[0]: entry[1] for entry in response.resources[0][4]}

    async def delete_before(self, name: str, offset: int) -> None:
        admin = AIOKafkaAdminClient(**self.settings.client_options())
        try:
            await admin.start()
            await admin.delete_records({TopicPartition(self.settings.topic(name), 0): RecordsToDelete(offset)})
        finally:
            await admin.close()

    async def read(self, name: str, count: int, within: float = 20) -> list[ConsumerRecord]:
        """The first `count` committed records of the topic, or as many as there are when the time is up."""
        consumer = AIOKafkaConsumer(
            self.settings.topic(name),
            **self.settings.client_options(),
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        found: list[ConsumerRecord] = []
        async with consumer:
            for _ in range(int(within / 0.2)):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
                if len(found) >= count:
                    break
        return found


@pytest.fixture
async def broker(kafka_bootstrap: str) -> AsyncIterator[Broker]:
    broker = Broker(KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=f"t{secrets.token_hex(4)}."))
    yield broker
    await broker.delete()


@pytest.fixture
def kafka(broker: Broker) -> KafkaSettings:
    return broker.settings


class Network:
    """The way to the broker through a relay of this process, which can be cut and mended."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, to_writer}
        try:
            await asyncio.gather(self._copy(reader, to_writer), self._copy(to_reader, writer))
        finally:
            self._writers -= {writer, to_writer}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def network(kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    """Leads every Kafka connection of this process through `Network`, whatever address the broker advertises."""
    host, port = kafka_bootstrap.rsplit(":", 1)
    network = Network(host, int(port))
    await network.mend()
    connect = aiokafka.client.create_conn

    async def redirected(_host: str, _port: int, **options: Any) -> Any:
        return await connect("127.0.0.1", network.port, **options)

    monkeypatch.setattr(aiokafka.client, "create_conn", redirected)
    yield network
    await network.cut()


@dataclass(frozen=True)
class Database:
    name: str
    url: str
    admin_url: str


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    """A database with the backbone's tables, owned by the administrator: roles are not what is tested here."""
    name = f"events_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(postgres_url)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        url = f"{postgres_url.rsplit('/', 1)[0]}/{name}"
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("CREATE SCHEMA system")
            for statement in backbone_tables(RoleNames("events")):
                if "CREATE TABLE system." in statement or "CREATE INDEX" in statement:
                    await connection.execute(statement)
            await connection.execute("CREATE TABLE effect (partition int, at bigint, value text)")
        finally:
            await connection.close()
        yield Database(name, url, postgres_url)
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.close()


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database.url.replace("postgresql://", "postgresql+asyncpg://"), pool_pre_ping=True)
    yield engine
    await engine.dispose()


@dataclass(frozen=True)
class Running:
    """Background work of a test, cancelled at its end."""

    tasks: list[asyncio.Task[None]]

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    async def cancel(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def running(engine: AsyncEngine, broker: Broker) -> AsyncIterator[Running]:
    running = Running([])
    yield running
    for task in running.tasks:
        await running.cancel(task)


Cut = Callable[[], Awaitable[None]]


@pytest.fixture
async def cut_connections(database: Database) -> AsyncIterator[Cut]:
    """Ends every connection to the test's database, as a restart of the server does."""
    admin = await asyncpg.connect(database.admin_url)

    async def cut() -> None:
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database.name)

    yield cut
    await admin.close()


@pytest.fixture
async def postgres_away(database: Database, cut_connections: Cut) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Refuses connections to the test's database for as long as the context lasts."""

    @contextlib.asynccontextmanager
    async def away() -> AsyncIterator[None]:
        admin = await asyncpg.connect(database.admin_url)
        try:
            await admin.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS false")
            await cut_connections()
            yield
        finally:
            await admin.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS true")
            await admin.close()

    return away
