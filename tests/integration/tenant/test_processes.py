"""The three roles as one process with a real broker: from POST to active, and what the others read of it."""

import asyncio
import os
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter

import anyio
import httpx
import pytest
from processes import SERVE, free_port, is_ready

from tenantry import TenantStatus
from tenantry.events import KafkaDirectory, KafkaSettings, RequestResponder, create_topics
from tenantry.testing import eventually

MASTER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PROVISIONED = 20


@asynccontextmanager
async def running(coroutine) -> AsyncIterator[None]:
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def process(database, bootstrap_file, kafka_bootstrap, kafka_prefix) -> AsyncIterator[str]:
    """`tenantry serve --role tenant`; gives the address of its API."""
    await create_topics(kafka_bootstrap, prefix=kafka_prefix)
    url = f"http://127.0.0.1:{(port := free_port())}"
    environment = {
        **os.environ,
        **database.environment(),
        "TENANT_PORT": str(port),
        "TENANT_BASE_URL": url,
        "TENANT_MASTER_KEY": MASTER_KEY,
        "TENANT_BOOTSTRAP_FILE": str(bootstrap_file),
        "TENANT_REQUIRED_SERVICES": '["app"]',
        "TENANTRY_ISSUER": url,
        "TENANTRY_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "TENANTRY_TOPIC_PREFIX": kafka_prefix,
    }
    async with await anyio.open_process([*SERVE, "tenant"], env=environment, stdout=None, stderr=None) as served:
        async with httpx.AsyncClient(base_url=url) as http:
            await eventually(partial(is_ready, http), within=60)
        yield url
        served.terminate()
        with anyio.fail_after(60):
            assert await served.wait() == 0


async def test_a_pool_tenant_is_active_soon_and_every_service_knows_it(
    process, database, kafka_bootstrap, kafka_prefix, capsys
):
    kafka = KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=kafka_prefix)

    async def provision(_request):
        return {}

    directory = KafkaDirectory(kafka)
    async with database.databases() as databases, httpx.AsyncClient(base_url=process) as http:
        responder = RequestResponder("app", kafka, databases.system, {"tenant.provision": provision})
        await directory.start()
        try:
            async with running(responder.run()):
                grant = {
                    "grant_type": "client_credentials",
                    "client_id": "operator",
                    "client_secret": "operator-secret",
                    "audience": "tenant",
                }
                token = (await http.post("/oauth/token", data=grant)).raise_for_status().json()["access_token"]
                http.headers["Authorization"] = f"Bearer {token}"
                seconds = [await _provision(http, directory, number) for number in range(PROVISIONED)]
        finally:
            await directory.stop()
    assert directory.directory.tier("standard") is not None
    assert len(directory.keys) == 1
    # The first waits for consumer groups to form.
    later = sorted(seconds[1:])
    with capsys.disabled():
        print(f"\nprovision_pool: p50 {statistics.median(later) * 1000:.0f} ms, slowest {later[-1] * 1000:.0f} ms")  # noqa: T201


async def _provision(http, directory, number):
    began = perf_counter()
    body = {"slug": f"soon-{number}", "name": "Soon", "tier": "standard", "admin_email": "a@x.example"}
    tenant = (await http.post("/v1/tenants", json=body)).raise_for_status().json()

    def active():
        known = directory.directory.resolve(tenant["id"])
        return known is not None and known.status is TenantStatus.ACTIVE

    await eventually(active, within=60, interval=0.005)
    return perf_counter() - began
