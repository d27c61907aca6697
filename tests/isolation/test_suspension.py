"""From a state topic to the refusal, with the real process and the real broker."""

import asyncio
import subprocess
import time

import httpx
import msgspec
import pytest
from broker import open_broker
from processes import SERVE, free_port, is_ready

from tenantry import Isolation, TenantStatus, uuid7
from tenantry.identity import Credential, new_api_key, secret_hash
from tenantry.testing import eventually

pytestmark = pytest.mark.parametrize("world", [Isolation.POOL], ids=str, indirect=True, scope="module")

LIMIT_SECONDS = 1.0


@pytest.fixture
async def broker(kafka_bootstrap, kafka_prefix):
    async with open_broker(kafka_bootstrap, kafka_prefix) as broker:
        yield broker


@pytest.fixture
async def served(app_environment, broker, issuer, world, tmp_path):
    """The app's API as a process of its own, ready, knowing tenants A and B."""
    await broker.publish_platform(issuer)
    await broker.publish_tenants(world.a, world.b)
    port = free_port()
    environment = {
        **app_environment,
        "APP_PORT": str(port),
        "TENANTRY_TOPIC_PREFIX": broker.settings.topic_prefix,
        "TENANTRY_STATE_DIR": str(tmp_path),
    }
    log = (tmp_path / "app-api.log").open("wb")
    process = subprocess.Popen(  # noqa: ASYNC220 (it returns at once)
        [*SERVE, "app-api"],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def ready():
            assert process.poll() is None, (tmp_path / "app-api.log").read_text()
            return await is_ready(client)

        try:
            await eventually(ready, within=60)
            yield client
        finally:
            process.terminate()
            process.wait(20)
            log.close()


async def test_a_suspended_tenant_is_refused_within_a_second(served, broker, world, issuer):
    """Reads too, and whatever the credential's age; the other tenant notices nothing."""

    def headers(tenant):
        return {"Authorization": f"Bearer {issuer.token(tenant_id=tenant.id)}"}

    of_a, of_b = headers(world.a), headers(world.b)
    assert (await served.get("/v1/documents", headers=of_a)).status_code == 200
    suspended = world.changed(
        world.a, status=TenantStatus.SUSPENDED, suspension_reasons=("abuse",), version=world.a.version + 1
    )
    published = time.monotonic()
    await broker.publish_tenants(suspended)
    while (response := await served.get("/v1/documents", headers=of_a)).status_code == 200:
        assert time.monotonic() - published < LIMIT_SECONDS, "still served"
        await asyncio.sleep(0.01)
    assert time.monotonic() - published < LIMIT_SECONDS
    assert (response.status_code, response.json()["type"]) == (403, "tenant-suspended")
    assert (await served.post("/v1/documents", json={"title": "t"}, headers=of_a)).status_code == 403
    assert (await served.get("/v1/documents", headers=of_b)).status_code == 200

    back = world.changed(world.a, version=world.a.version + 2)
    await broker.publish_tenants(back)

    async def served_again():
        return (await served.get("/v1/documents", headers=of_a)).status_code == 200

    await eventually(served_again)


@pytest.mark.parametrize("how", ["revoked", "deleted"])
async def test_a_key_that_is_taken_back_is_refused_within_a_second(served, broker, world, how):
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

    await broker.publish("tenant.credentials.v1", key.id, key)
    await eventually(accepted)
    revoked = msgspec.structs.replace(key, status="revoked")
    published = time.monotonic()
    await broker.publish("tenant.credentials.v1", key.id, revoked if how == "revoked" else None)
    while await status() != 401:
        assert time.monotonic() - published < LIMIT_SECONDS, "still accepted"
        await asyncio.sleep(0.01)
