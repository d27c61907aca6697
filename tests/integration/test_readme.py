"""The service in README.md does what is said about it: its text is run, on real state topics and a real database."""

import importlib
import json
import re
import sys
from pathlib import Path

import httpx
import pytest
from broker import open_broker
from issuer import ISSUER, Issuer

from tenantry import Tier
from tenantry.testing import eventually

README = Path(__file__).parents[2] / "README.md"
HEADING = "## Build a product service on the library"
MIGRATIONS = Path(__file__).parent / "notes_migrations"


@pytest.fixture
async def broker(kafka_bootstrap, kafka_prefix):
    async with open_broker(kafka_bootstrap, kafka_prefix) as broker:
        yield broker


@pytest.fixture
def notes(service_database, broker, tmp_path, monkeypatch):
    """The module `notes`, imported in the environment that a process of it would have."""
    environment = {
        "NOTES_DATABASE_URL": service_database("notes", MIGRATIONS).urls.service,
        "TENANTRY_ISSUER": ISSUER,
        "TENANTRY_KAFKA_BOOTSTRAP": broker.settings.kafka_bootstrap,
        "TENANTRY_TOPIC_PREFIX": broker.settings.topic_prefix,
        "TENANTRY_STATE_DIR": str(tmp_path),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    source = re.search(rf"^{HEADING}$.*?^```python\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert source is not None, "README.md has no example"
    (tmp_path / "notes.py").write_text(source[1], "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "notes", raising=False)
    return importlib.import_module("notes")


@pytest.fixture
async def client(notes):
    async with (
        notes.app.router.lifespan_context(notes.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(notes.app), base_url="http://notes.test") as client,
    ):
        yield client


async def test_the_example_keeps_tenants_apart_and_meters_them(client, broker, tenant_a, tenant_b):
    issuer = Issuer()
    await broker.publish_platform(issuer, Tier(name="standard", version=1))
    await broker.publish_tenants(tenant_a, tenant_b)
    of_a, of_b = (
        {"Authorization": f"Bearer {issuer.token(tenant_id=tenant.id, audience='notes')}"}
        for tenant in (tenant_a, tenant_b)
    )

    async def knows_both():
        return [(await client.get("/v1/notes", headers=headers)).status_code for headers in (of_a, of_b)] == [200, 200]

    await eventually(knows_both)
    for headers, body in ((of_a, "from a"), (of_b, "of tenant b")):
        added = await client.post("/v1/notes", json={"body": body}, headers=headers)
        assert added.status_code == 201, added.text
        assert (await client.get("/v1/notes", headers=headers)).json() == [added.json() | {"body": body}]

    refused = await client.get("/v1/notes", headers=of_a | {"X-Tenant-ID": str(tenant_b.id)})
    assert (refused.status_code, refused.json()["type"]) == (403, "tenant-mismatch")

    def posts(tenant, events):
        return [
            (event["type"], event["data"].get("value"), event["data"].get("status"))
            for event in events
            if event["subject"] == str(tenant.id) and event["data"].get("method") != "GET"
        ]

    async def shipped():
        records = await broker.read("usage.events.v1")
        events = [json.loads(record.value) for record in records]
        assert [record.key.decode() for record in records] == [event["subject"] for event in events]
        assert posts(tenant_a, events) == [("note.added", 6, None), ("notes.request", None, 201)]
        assert posts(tenant_b, events) == [("note.added", 11, None), ("notes.request", None, 201)]
        return True

    await eventually(shipped, within=60)
