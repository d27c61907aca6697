"""The library alone: a company's database, table of organisations and identity provider, and nothing of ours.

No Kafka, no tenant service, no token of it: everything that a deployment sets is set here by environment variables.
"""

import asyncio
import json
import sys

import httpx
import pytest
from issuer import serve_identity_provider
from orgs_product import ORG, install

from tenantry import StartupRefused, Tenancy
from tenantry.testing import eventually


@pytest.fixture
def environment(database, planted, monkeypatch, tmp_path):
    with serve_identity_provider() as provider:
        issuer = {
            "name": "idp",
            "issuer": provider.url,
            "audiences": ["my-api"],
            "jwks_uri": f"{provider.url}/keys",
            "tenant": {"claim": "org_id", "names": "external_id"},
            "default_scopes": ["tenant:write"],
        }
        variables = {
            **database.environment(),
            "ORGS_POOL_SCHEMA": "public",
            "TENANTRY_IDENTITY": "external",
            "TENANTRY_TRUSTED_ISSUERS": json.dumps([issuer]),
            "TENANTRY_STATE_DIR": str(tmp_path),
            "TENANTRY_DIRECTORY": "sql",
            "TENANTRY_DIRECTORY_SQL_URL": database.urls.system,
            "TENANTRY_DIRECTORY_SQL_QUERY": "SELECT id, name || '-' || id AS slug, name FROM public.org",
            "TENANTRY_DIRECTORY_POLL_SECONDS": "0.05",
        }
        monkeypatch.delenv("TENANTRY_KAFKA_BOOTSTRAP", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield provider


async def test_two_organisations_are_kept_apart(environment, database):
    tenancy = Tenancy.from_env("orgs", tenant_column=ORG, follow_placement=False)
    app = install(tenancy)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://orgs.test") as client:

            async def ready():
                return (await client.get("/readyz")).status_code == 200

            def headers(org):
                return {"Authorization": f"Bearer {environment.token(org_id=org)}"}

            await eventually(ready)
            for org in ("41", "42"):
                assert (await client.get("/projects", headers=headers(org))).json() == [f"project of {org}"]
                assert (await client.get("/tasks", headers=headers(org))).json() == [f"task of {org}"]
            added = await client.post("/projects", json={"name": "new"}, headers=headers("41"))
            assert added.status_code == 201, added.text
            assert (await client.get("/projects", headers=headers("42"))).json() == ["project of 42"]
            foreign = await client.get("/projects/420/tasks", headers=headers("41"))
            assert foreign.status_code == 404
            mismatch = await client.get("/projects", headers=headers("41") | {"X-Tenant-ID": "42"})
            assert (mismatch.status_code, mismatch.json()["type"].rpartition("/")[2]) == (403, "tenant-mismatch")
            assert (await client.get("/projects", headers=headers("99"))).status_code in {401, 403, 404}

            metrics = (await client.get("/metrics")).text
            assert 'tenantry_directory_ready{service="orgs"} 1.0' in metrics
            assert 'tenantry_directory_tenants{service="orgs"} 2.0' in metrics
            assert 'tenantry_directory_staleness_seconds{service="orgs"}' in metrics

            async with database.connect() as admin:
                await admin.execute("INSERT INTO public.org VALUES (43, 'late')")
            await eventually(lambda: tenancy.directory.resolve("43"))
            assert (await client.get("/projects", headers=headers("43"))).json() == []


async def test_a_database_that_is_away_at_the_start_keeps_it_unready(environment, monkeypatch):
    monkeypatch.setenv("TENANTRY_DIRECTORY_SQL_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    tenancy = Tenancy.from_env("orgs", tenant_column=ORG, follow_placement=False)
    app = install(tenancy)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://orgs.test") as client:
            assert (await client.get("/readyz")).status_code == 503
            refused = await client.get(
                "/projects", headers={"Authorization": f"Bearer {environment.token(org_id='41')}"}
            )
            assert refused.status_code in {401, 503}


async def test_it_needs_no_client_of_kafka(environment):
    script = (
        "import sys; sys.modules['aiokafka'] = sys.modules['yaml'] = None\n"
        "from tenantry import Tenancy; Tenancy.from_env('orgs', follow_placement=False)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await process.wait() == 0


async def test_tokens_of_a_tenant_service_that_is_not_there_are_refused_at_the_start(environment, monkeypatch):
    monkeypatch.setenv("TENANTRY_IDENTITY", "tenantry")
    monkeypatch.setenv("TENANTRY_ISSUER", "https://tenant.test")
    with pytest.raises(StartupRefused, match="TENANTRY_IDENTITY=external"):
        Tenancy.from_env("orgs", follow_placement=False)
