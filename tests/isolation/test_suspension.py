"""From a state topic to the refusal, with the real process and the real broker."""

import asyncio
import subprocess
import sys
import time

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from tenantry import Isolation, TenantStatus, uuid7
from tenantry.events import KafkaSettings, create_topics
from tenantry.identity import Credential, new_api_key, secret_hash
from tenantry.testing import eventually

pytestmark = pytest.mark.parametrize("world", [Isolation.POOL], ids=str, indirect=True, scope="module")

LIMIT_SECONDS = 1.0


@pytest.fixture
async def kafka(kafka_prefix, kafka_bootstrap):
    settings = KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=kafka_prefix)
    await create_topics(settings)
    return settings


@pytest.fixture
async def publish(kafka):
    producer = AIOKafkaProducer(**kafka.client_options(), acks="all")
    await producer.start()

    async def send(topic, key, value):
        await producer.send_and_wait(
            kafka.topic(topic), key=key.encode(), value=None if value is None else msgspec.json.encode(value)
        )

    yield send
    await producer.stop()


@pytest.fixture
async def served(app_environment, kafka, publish, issuer, world, free_port, tmp_path):
    """The app's API as a process of its own, ready, knowing tenants A and B."""
    await publish("platform.state.v1", "jwks", issuer.jwks)
    for tenant in (world.a, world.b):
        await publish("tenant.state.v1", str(tenant.id), tenant)
    environment = {
        **app_environment,
        "APP_PORT": str(free_port),
        "TENANTRY_TOPIC_PREFIX": kafka.topic_prefix,
        "TENANTRY_STATE_DIR": str(tmp_path),
    }
    log = (tmp_path / "app-api.log").open("wb")
    process = subprocess.Popen(  # noqa: ASYNC220 (it returns at once)
        [sys.executable, "-c", "from tenantry.cli import main; main()", "serve", "--role", "app-api"],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port}") as client:

        async def ready():
            assert process.poll() is None, (tmp_path / "app-api.log").read_text()
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        try:
            await eventually(ready, within=30)
            yield client
        finally:
            process.terminate()
            process.wait(20)
            log.close()


async def test_a_suspended_tenant_is_refused_within_a_second(served, publish, world, issuer):
    """Reads too, and whatever the credential's age; the other tenant notices nothing."""

    def headers(tenant):
        return {"Authorization": f"Bearer {issuer.token(tenant_id=tenant.id)}"}

    of_a, of_b = headers(world.a), headers(world.b)
    assert (await served.get("/v1/documents", headers=of_a)).status_code == 200
    suspended = world.changed(
        world.a, status=TenantStatus.SUSPENDED, suspension_reasons=("abuse",), version=world.a.version + 1
    )
    published = time.monotonic()
    await publish("tenant.state.v1", str(world.a.id), suspended)
    while (response := await served.get("/v1/documents", headers=of_a)).status_code == 200:
        assert time.monotonic() - published < LIMIT_SECONDS, "still served"
        await asyncio.sleep(0.01)
    assert time.monotonic() - published < LIMIT_SECONDS
    assert (response.status_code, response.json()["type"]) == (403, "tenant-suspended")
    assert (await served.post("/v1/documents", json={"title": "t"}, headers=of_a)).status_code == 403
    assert (await served.get("/v1/documents", headers=of_b)).status_code == 200

    back = world.changed(world.a, version=world.a.version + 2)
    await publish("tenant.state.v1", str(world.a.id), back)

    async def served_again():
        return (await served.get("/v1/documents", headers=of_a)).status_code == 200

    await eventually(served_again, within=5)


@pytest.mark.parametrize("how", ["revoked", "deleted"])
async def test_a_key_that_is_taken_back_is_refused_within_a_second(served, publish, world, how):
    secret = new_api_key()
    key = Credential(
        id=str(uuid7()),
        kind="api_key",
        hash=secret_hash(secret),
        tenant_id=world.b.id,
        subject="a key",
        scopes=frozenset({"tenant:read"}),
    )
    headers = {"Authorization": f"Bearer {secret}"}

    async def status():
        return (await served.get("/v1/documents", headers=headers)).status_code

    async def accepted():
        return await status() == 200

    await publish("tenant.credentials.v1", key.id, key)
    await eventually(accepted, within=5)
    revoked = msgspec.structs.replace(key, status="revoked")
    published = time.monotonic()
    await publish("tenant.credentials.v1", key.id, revoked if how == "revoked" else None)
    while await status() != 401:
        assert time.monotonic() - published < LIMIT_SECONDS, "still accepted"
        await asyncio.sleep(0.01)
