"""The app's three roles as a process, between a real broker and a real database."""

import asyncio
import json
import os
import socket
import sys

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from app_world import new_world
from issuer import ISSUER, Issuer

from tenantry import Isolation, uuid7
from tenantry.events import KafkaSettings, create_topics, load_topics
from tenantry.testing import eventually


class Broker:
    """What the test says and hears on Kafka."""

    def __init__(self, settings, producer):
        self.settings = settings
        self._producer = producer

    async def publish(self, topic, key, value):
        await self._producer.send_and_wait(
            self.settings.topic(topic), key=key.encode(), value=msgspec.json.encode(value)
        )

    async def read(self, topic):
        """Every committed value of a topic, in the order of its partitions."""
        consumer = AIOKafkaConsumer(**self.settings.client_options(), isolation_level="read_committed")
        await consumer.start()
        values = []
        try:
            name = self.settings.topic(topic)
            (count,) = (each.partitions for each in load_topics() if each.name == topic)
            partitions = [TopicPartition(name, n) for n in range(count)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            await consumer.seek_to_beginning()
            while any([await consumer.position(each) < end for each, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    values += [json.loads(record.value) for record in records]
        finally:
            await consumer.stop()
        return values


@pytest.fixture
async def broker(kafka_prefix, kafka_bootstrap):
    settings = KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=kafka_prefix)
    await create_topics(settings)
    producer = AIOKafkaProducer(**settings.client_options(), acks="all")
    await producer.start()
    yield Broker(settings, producer)
    await producer.stop()


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def environment(service_database, kafka_bootstrap, kafka_prefix, port, tmp_path):
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        **service_database("app").environment(),
        "APP_PORT": str(port),
        "TENANTRY_ISSUER": ISSUER,
        "TENANTRY_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "TENANTRY_TOPIC_PREFIX": kafka_prefix,
        "TENANTRY_STATE_DIR": str(tmp_path / "state"),
    }


@pytest.fixture
async def start(environment, port, tmp_path):
    """Starts roles of the app and waits until they are ready; what is still there is killed at the end."""
    running = []

    async def start_roles(role):
        with (tmp_path / "app.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "from tenantry.cli import main; main()", "serve", "--role", role,
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        running.append(process)

        async def ready():
            assert process.returncode is None, (tmp_path / "app.log").read_text()
            async with httpx.AsyncClient() as client:
                try:
                    return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

        await eventually(ready, within=60)
        return process

    yield start_roles
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_tenant_is_provisioned_served_and_metered_across_a_kill(service_database, broker, start, port):
    issuer = Issuer()
    world = new_world(service_database("app"), Isolation.SCHEMA)
    tenant = world.a
    await broker.publish("platform.state.v1", "jwks", issuer.jwks)
    await broker.publish("tenant.state.v1", str(tenant.id), tenant)
    request = {
        "request_id": str(uuid7()),
        "kind": "tenant.provision",
        "services": ["app"],
        "tenant_id": str(tenant.id),
        "data": {"placement": {"store": "default", "isolation": "schema", "epoch": 1}},
    }
    process = await start("app")
    await broker.publish("tenant.requests.v1", str(tenant.id), request)

    async def answered():
        return [ack for ack in await broker.read("tenant.acks.v1") if ack["request_id"] == request["request_id"]]

    (ack,) = await eventually(answered, within=60)
    assert (ack["service"], ack["outcome"]) == ("app", "done")

    headers = {"Authorization": f"Bearer {issuer.token(tenant_id=tenant.id)}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        created = await client.post("/v1/documents", json={"title": "metered"})
        assert created.status_code == 201, created.text
        for n in range(20):
            path = f"{created.headers['location']}/files/f{n}"
            assert (await client.put(path, content=b"x" * (n + 1))).status_code == 201
        process.kill()  # with what was answered a moment ago still on its way to the broker
        await process.wait()
    await start("app-api")

    async def shipped():
        events = await broker.read("usage.events.v1")
        unique = {event["id"]: event for event in events if event["subject"] == str(tenant.id)}
        requests = [event for event in unique.values() if event["type"] == "app.request"]
        assert len(requests) >= 21, f"{len(requests)} of 21 requests"
        return list(unique.values())

    events = await eventually(shipped, within=60)
    requests = [event["data"] for event in events if event["type"] == "app.request"]
    assert len(requests) == 21
    assert sum(data["bytes_in"] for data in requests if data["method"] == "PUT") == 210
    gauges = [event["data"] for event in events if event["type"] == "storage.bytes"]
    assert sum(data["delta"] for data in gauges) == 210
    assert max(data["bytes"] for data in gauges) == 210
