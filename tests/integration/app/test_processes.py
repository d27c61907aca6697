"""The app's three roles as a process, between a real broker and a real database."""

import asyncio
import json
import os

import httpx
import pytest
from app_world import new_world
from broker import open_broker
from issuer import ISSUER, Issuer
from processes import SERVE, free_port, is_ready

from tenantry import Isolation, uuid7
from tenantry.testing import eventually


@pytest.fixture
async def broker(kafka_bootstrap, kafka_prefix):
    async with open_broker(kafka_bootstrap, kafka_prefix) as broker:
        yield broker


@pytest.fixture
def port():
    return free_port()


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
            process = await asyncio.create_subprocess_exec(*SERVE, role, env=environment, stdout=log, stderr=log)
        running.append(process)

        async def ready():
            assert process.returncode is None, (tmp_path / "app.log").read_text()
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                return await is_ready(client)

        await eventually(ready, within=60)
        return process

    yield start_roles
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def provisioned(broker, start, tenant):
    """The app, as a process with all its roles, which has made the tenant's place."""
    await broker.publish_tenants(tenant)
    request = {
        "request_id": str(uuid7()),
        "kind": "tenant.provision",
        "services": ["app"],
        "tenant_id": str(tenant.id),
        "data": {"placement": {"store": "primary", "isolation": "schema", "epoch": 1}},
    }
    process = await start("app")
    await broker.publish("tenant.requests.v1", str(tenant.id), request)

    async def answered():
        acks = [json.loads(record.value) for record in await broker.read("tenant.acks.v1")]
        return [ack for ack in acks if ack["request_id"] == request["request_id"]]

    (ack,) = await eventually(answered, within=60)
    assert (ack["service"], ack["outcome"]) == ("app", "done")
    return process


async def test_a_tenant_is_provisioned_served_and_metered_across_a_kill(service_database, broker, start, port):
    issuer = Issuer()
    tenant = new_world(service_database("app"), Isolation.SCHEMA).a
    await broker.publish_platform(issuer)
    process = await provisioned(broker, start, tenant)

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
        events = [json.loads(record.value) for record in await broker.read("usage.events.v1")]
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


async def test_an_export_is_written_after_a_kill_and_metered(service_database, broker, start, port):
    issuer = Issuer()
    tenant = new_world(service_database("app"), Isolation.SCHEMA).a
    await broker.publish_platform(issuer)
    process = await provisioned(broker, start, tenant)
    headers = {"Authorization": f"Bearer {issuer.token(tenant_id=tenant.id)}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        assert (await client.post("/v1/documents", json={"title": "to be exported"})).status_code == 201
        requested = await client.post("/v1/exports")
        assert requested.status_code == 202, requested.text
        process.kill()
        await process.wait()
        await start("app")

        async def ready():
            export = (await client.get(requested.headers["location"])).json()
            return export["state"] == "ready" and export

        export = await eventually(ready, within=60)
        content = await client.get(f"{requested.headers['location']}/content")
    assert (content.status_code, len(content.content)) == (200, export["size"])

    async def metered():
        events = [json.loads(record.value) for record in await broker.read("usage.events.v1")]
        return [
            each["data"] for each in events if each["type"] == "storage.bytes" and each["subject"] == str(tenant.id)
        ]

    assert {"bytes": export["size"], "delta": export["size"]} in await eventually(metered, within=60)


async def test_a_worker_shows_its_metrics_where_it_is_told_to(start, environment, port):
    environment["TENANTRY_METRICS_PORT"] = str(port)
    await start("app-jobs")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def shown():
            return 'tenantry_jobs_running{service="app"} 0.0' in (await client.get("/metrics")).text

        # The role may take longer to start than what shows its metrics.
        assert await eventually(shown)
        hidden = [(await client.get(path)).status_code for path in ("/docs", "/openapi.json", "/v1/documents")]
    assert hidden == [404, 404, 404]
