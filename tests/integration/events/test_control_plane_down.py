"""The data plane without tenant service and Kafka: whoever knows its tenants goes on, whoever starts waits."""

from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from issuer import ISSUER, Issuer

from tenantry import CurrentTenant, Tenancy, TenancySettings, TenantStatus
from tenantry.events import KafkaDirectory, create_topics
from tenantry.testing import eventually

TOPICS = ["tenant.state.v1", "tenant.config.v1", "platform.state.v1", "tenant.credentials.v1"]


@pytest.fixture
def issuer():
    """The tenant service's signing key; the service itself is nowhere."""
    return Issuer()


@pytest.fixture
async def told(kafka, broker, issuer, tenant_a):
    await create_topics(kafka, only=TOPICS)
    await broker.write("platform.state.v1", [msgspec.json.encode(issuer.jwks)], key=b"jwks")
    await say(broker, tenant_a)


async def say(broker, tenant):
    await broker.write("tenant.state.v1", [msgspec.json.encode(tenant)], key=str(tenant.id).encode())


@pytest.fixture
def serve(kafka, tmp_path):
    @asynccontextmanager
    async def serve():
        settings = TenancySettings(issuer=ISSUER, state_dir=tmp_path, max_staleness_seconds=1.0)
        tenancy = Tenancy("app", settings, source=KafkaDirectory(kafka))
        app = FastAPI(lifespan=tenancy.lifespan)

        @app.get("/tenant")
        async def show(tenant: CurrentTenant) -> str:
            return tenant.slug

        @app.post("/tenant")
        async def change(tenant: CurrentTenant) -> str:
            return tenant.slug

        tenancy.install(app)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://app.test") as client:
                yield tenancy, client

    return serve


async def is_ready(client):
    return (await client.get("/readyz")).status_code == 200


async def test_who_knows_its_tenants_goes_on(network, broker, told, serve, issuer, tenant_a):
    async with serve() as (tenancy, client):
        await eventually(lambda: is_ready(client), 60)
        headers = {"Authorization": f"Bearer {issuer.token(tenant_id=tenant_a.id)}"}
        operator = {"Authorization": f"Bearer {issuer.token(kind='operator', scope='platform')}"}
        await network.cut()
        await eventually(lambda: tenancy._source.lag_seconds > 1.5, 20)
        # New tokens too: they are verified with the keys that are known.
        for token in (headers, {"Authorization": f"Bearer {issuer.token(tenant_id=tenant_a.id)}"}):
            for method in ("GET", "POST"):
                answer = await client.request(method, "/tenant", headers=token)
                assert (answer.status_code, answer.json()) == (200, tenant_a.slug)
        privileged = await client.post("/tenant", headers=operator | {"X-Tenant-ID": str(tenant_a.id)})
        assert (privileged.status_code, privileged.json()["type"].rpartition("/")[2]) == (503, "state-stale")
        assert await is_ready(client)
        metrics = (await client.get("/metrics")).text
        (age,) = (
            line.split()[1] for line in metrics.splitlines() if line.startswith("tenantry_directory_staleness_seconds{")
        )
        assert float(age) > 1.0

        await network.mend()
        await say(
            broker, msgspec.structs.replace(tenant_a, status=TenantStatus.SUSPENDED, version=tenant_a.version + 1)
        )

        async def is_refused():
            return (await client.get("/tenant", headers=headers)).status_code == 403

        await eventually(is_refused, 30)


async def test_who_starts_without_kafka_is_not_ready_until_it_is_back(network, told, serve, issuer, tenant_a):
    await network.cut()
    async with serve() as (tenancy, client):
        headers = {"Authorization": f"Bearer {issuer.token(tenant_id=tenant_a.id)}"}
        assert not await is_ready(client)
        assert (await client.get("/tenant", headers=headers)).status_code in {401, 503}
        assert not tenancy.directory.ready
        await network.mend()
        await eventually(lambda: is_ready(client), 60)
        assert (await client.get("/tenant", headers=headers)).json() == tenant_a.slug
