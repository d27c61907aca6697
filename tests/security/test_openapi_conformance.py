"""What people and machines make up from the OpenAPI documents gets an answer that the documents promise, and no 5xx."""

from collections.abc import Mapping
from types import MappingProxyType
from uuid import uuid4

import pytest
from app_product import run_product
from app_world import built_world
from billing_installation import Installation, settled
from fastapi import FastAPI
from local_state import GivenState
from openapi_examples import Examined, examine
from planted_rows import plant
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response

from app_service.settings import AppSettings
from billing_service.app import create_app as create_billing_app
from billing_service.catalogue import CATALOGUE as BILLING
from tenant_service.app import create_app as create_tenant_app
from tenantry import Isolation, Tenancy, TenancySettings, Tenant
from tenantry.database import Databases
from tenantry.events import KafkaSettings, create_topics
from tenantry.http import service_app
from tenantry.identity import Scope
from tenantry.testing import eventually, route_operations
from usage_service.app import create_app as create_usage_app
from usage_service.data_catalogue import CATALOGUE as USAGE
from usage_service.settings import UsageSettings

WHO = pytest.mark.parametrize("who", ["operator", "tenant"])


async def conforms(
    app: FastAPI, headers: Mapping[str, str], known: Mapping[str, str] = MappingProxyType({})
) -> Examined:
    examined = await examine(app, headers, known)
    assert not examined.faults, "\n".join(examined.faults)
    assert examined.asked == {str(each) for each in route_operations(app.openapi())}
    return examined


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@WHO
async def test_tenant_service(people, who):
    tenant_id = await people.tenant()
    keys = f"/v1/tenants/{tenant_id}/api-keys"
    # The second is there to be rotated and revoked: the first asks.
    key, another = [await people.http.post(keys, json={"name": "k", "scopes": ["tenant:admin"]}) for _ in range(2)]
    assert (key.status_code, another.status_code) == (201, 201), key.text
    secret = await people.client_token("operator") if who == "operator" else key.json()["key"]
    domain = await people.http.post(f"/v1/tenants/{tenant_id}/domains", json={"domain": f"{uuid4().hex}.example.org"})
    config = await people.http.put(f"/v1/tenants/{tenant_id}/config/branding", json={"name": "Branded"})
    # The region that is called as the tier is; the store in it takes nobody.
    region = await people.http.post("/v1/stores", json={"name": f"far-{who}", "region": "standard", "capacity": 0})
    assert (domain.status_code, config.status_code, region.status_code) == (201, 201, 201)
    known = {
        "tenant_id": tenant_id,
        "key_id": another.json()["id"],
        "member_id": (await people.join(tenant_id, "viewer")).member_id,
        "invitation_id": (await people.invite(tenant_id, "viewer"))["id"],
        "grant_id": (await people.support(tenant_id))["id"],
        "run_id": (await people.http.get(f"/v1/tenants/{tenant_id}/runs")).json()["items"][0]["id"],
        "domain": domain.json()["domain"],
        "namespace": "branding",
        "name": "standard",
        "version": "1",
    }
    examined = await conforms(create_tenant_app(people.runtime), bearer(secret), known)
    assert len(examined.served) >= (75 if who == "operator" else 30), sorted(examined.asked - examined.served)


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
    async with app.router.lifespan_context(app), database.connect() as connection:
        planted = await plant(connection, USAGE, tenant_a.id)
        own = {"tenant_id": str(tenant_a.id), "feature": planted.word, "grant_id": str(planted.own_id)}
        credential = state.key(*scopes, tenant=None if who == "operator" else tenant_a)
        examined = await conforms(app, credential, {"slug": "meter", "meter": "meter"} | own)
    assert len(examined.served) >= 6, sorted(examined.asked - examined.served)


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
            async with database.connect() as connection:
                planted = await plant(connection, BILLING, tenant_a.id)
            names = ("subscription_id", "invoice_id", "run_id")
            examined = await conforms(app, bearer(key), dict.fromkeys(names, str(planted.own_id)))
    assert len(examined.served) >= (7 if who == "operator" else 4), sorted(examined.asked - examined.served)


@WHO
async def test_app_service(service_database, tmp_path, who):
    world = built_world(service_database("app"), Isolation.POOL)
    settings = AppSettings(max_file_bytes=100_000)
    async with run_product(world.database, [world.a], tmp_path, settings=settings) as product:
        operator = bearer(product.issuer.token(scope="platform", kind="operator")) | {"X-Tenant-ID": str(world.a.id)}
        headers = operator if who == "operator" else product.headers(world.a)
        examined = await conforms(product.app, headers, world.ids(world.a))
    assert len(examined.served) >= 11, sorted(examined.asked - examined.served)


class Thing(BaseModel):
    name: str


def app_with_faults() -> FastAPI:
    """Every way not to be what the document says, a route each, and one that is."""
    app = service_app(title="Faults", service="faults")

    @app.get("/v1/right")
    async def right() -> Thing:
        return Thing(name="right")

    @app.get("/v1/raises")
    async def raises() -> Thing:
        raise ZeroDivisionError

    @app.get("/v1/other-shape", response_model=Thing)
    async def other_shape() -> Response:
        return Response('{"named": 1}', media_type="application/json")

    @app.get("/v1/other-status", response_model=Thing)
    async def other_status() -> Response:
        return Response('{"name": "x"}', 202, media_type="application/json")

    @app.get("/v1/other-type", response_model=Thing)
    async def other_type() -> Response:
        return PlainTextResponse("name")

    return app


async def test_whatever_is_not_as_documented_is_found() -> None:
    examined = await examine(app_with_faults(), {}, {})
    found = {line.split(": ")[0].removeprefix("GET /v1/") for line in examined.faults}
    assert found == {"raises", "other-shape", "other-status", "other-type"}
    assert examined.served == examined.asked - {"GET /v1/raises"}
