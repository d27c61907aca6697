"""What people and machines make up from the OpenAPI documents gets an answer that the documents promise, and no 5xx."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest
from app_product import run_product
from app_world import built_world
from billing_installation import Installation, settled
from fastapi import FastAPI
from local_state import GivenState
from openapi_examples import violations

from app_service.settings import AppSettings
from billing_service.app import create_app as create_billing_app
from tenant_service.app import create_app as create_tenant_app
from tenantry import Isolation, Tenancy, TenancySettings, Tenant
from tenantry.database import Databases
from tenantry.events import KafkaSettings, create_topics
from tenantry.identity import Scope
from tenantry.testing import eventually
from usage_service.app import create_app as create_usage_app
from usage_service.settings import UsageSettings

WHO = pytest.mark.parametrize("who", ["operator", "tenant"])


async def conforms(app: FastAPI, headers: Mapping[str, str], known: Mapping[str, str] = MappingProxyType({})) -> None:
    found = await violations(app, headers, known)
    assert not found, "\n".join(found)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@WHO
async def test_tenant_service(people, who):
    tenant_id = await people.tenant()
    key = await people.http.post(f"/v1/tenants/{tenant_id}/api-keys", json={"name": "k", "scopes": ["tenant:admin"]})
    assert key.status_code == 201, key.text
    secret = await people.client_token("operator") if who == "operator" else key.json()["key"]
    await conforms(create_tenant_app(people.runtime), bearer(secret), {"tenant_id": tenant_id})


@WHO
async def test_usage_service(service_database, kafka_bootstrap, kafka_prefix, tenant_a: Tenant, who):
    database = service_database("usage")
    kafka = KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=kafka_prefix)
    await create_topics(kafka)
    state = GivenState([tenant_a])
    databases = Databases("usage", database.settings(), follow_placement=False)
    tenancy = Tenancy("usage", TenancySettings(issuer="http://tenant.test"), source=state, databases=databases)
    app = create_usage_app(UsageSettings(), tenancy, kafka)
    scopes = [Scope.PLATFORM] if who == "operator" else [Scope.TENANT_READ, Scope.TENANT_WRITE, Scope.TENANT_ADMIN]
    async with app.router.lifespan_context(app):
        await conforms(app, state.key(*scopes, tenant=None if who == "operator" else tenant_a))


@WHO
async def test_billing_service(service_database, kafka_bootstrap, kafka_prefix, tenant_a: Tenant, who):
    database = service_database("billing")
    await database.truncate()
    async with database.connect() as connection:
        await connection.execute("INSERT INTO system.seller VALUES ('default', '', 'INV-', 1)")
    async with Installation.start(database, kafka_bootstrap, kafka_prefix) as installation:
        await installation.publish_tenants(tenant_a)
        scopes = ["platform"] if who == "operator" else ["tenant:read", "tenant:write", "tenant:admin"]
        key = await installation.api_key(*scopes, tenant=None if who == "operator" else tenant_a)
        runtime = installation.runtime()
        app = create_billing_app(runtime)
        async with app.router.lifespan_context(app):
            await settled(runtime)
            await eventually(lambda: tenant_a.id in {each.id for each in runtime.source.directory})
            await conforms(app, bearer(key))


@WHO
async def test_app_service(service_database, tmp_path, who):
    world = built_world(service_database("app"), Isolation.POOL)
    settings = AppSettings(max_file_bytes=100_000)
    async with run_product(world.database, [world.a], tmp_path, settings=settings) as product:
        operator = bearer(product.issuer.token(scope="platform", kind="operator")) | {"X-Tenant-ID": str(world.a.id)}
        headers = operator if who == "operator" else product.headers(world.a)
        await conforms(product.app, headers, world.ids(world.a))
