"""Spreading a tenant's events over keys: who may, what is written, and what everybody else learns of it."""

from uuid import UUID

import httpx
import pytest

from tenantry import Routing, TenancySettings
from tenantry.events import USAGE_EVENTS, partitions_of
from tenantry.testing import eventually
from usage_service.routing.client import TenantService, tenant_service

from .conftest import ISSUER, SECRETS

MOST = partitions_of(USAGE_EVENTS)


async def put(api, tenant, **body):
    return await api.http.put(f"/v1/tenants/{tenant['id']}/routing", json=body)


@pytest.fixture
async def as_usage(start_api):
    """The API with the token of the service that may spread tenants."""
    api = await start_api(routing_clients=["app"])
    await api.sign_in("app")
    return api


async def test_a_change_is_a_document_a_line_and_an_entry_and_a_repetition_is_nothing(api, platform):
    tenant = await api.create()
    assert tenant["routing"] == {"buckets": 1, "pinned": False, "changed_at": None}
    answer = await put(api, tenant, buckets=4)
    assert answer.status_code == 200
    routing = answer.json()["routing"]
    assert (routing["buckets"], routing["pinned"]) == (4, False)
    assert routing["changed_at"] is not None
    assert answer.headers["ETag"] == f'"{tenant["version"] + 1}"'
    assert (await put(api, tenant, buckets=4)).json()["version"] == tenant["version"] + 1

    document = (await platform.outbox("tenant.state.v1", tenant["id"]))[-1]["payload"]
    assert document["routing"] == routing
    story = await platform.outbox("tenant.events.v1", tenant["id"])
    assert [row["type"] for row in story].count("tenant.routing_changed.v1") == 1
    assert (story[-1]["payload"]["previous_buckets"], story[-1]["payload"]["buckets"]) == (1, 4)
    assert (await platform.audit(UUID(tenant["id"])))[-1] == "tenant.route"
    # To pin what is there changes no key: it is no later change of routing.
    pinned = (await put(api, tenant, buckets=4, pinned=True)).json()["routing"]
    assert pinned == {"buckets": 4, "pinned": True, "changed_at": routing["changed_at"]}


async def test_no_more_buckets_than_partitions_and_none_too_few(api):
    tenant = await api.create()
    assert (await put(api, tenant, buckets=MOST)).status_code == 200
    for buckets in (0, -1, MOST + 1, "4", 1.5, None):
        answer = await put(api, tenant, buckets=buckets)
        assert answer.status_code == 422, buckets
        assert answer.json()["errors"][0]["loc"] == ["body", "buckets"]
    assert (await api.http.get(f"/v1/tenants/{tenant['id']}")).json()["routing"]["buckets"] == MOST


async def test_the_usage_service_spreads_tenants_and_leaves_the_pinned_alone(api, as_usage):
    tenant = await api.create()
    assert (await put(as_usage, tenant, buckets=2)).status_code == 200
    assert (await put(as_usage, tenant, buckets=2, pinned=True)).status_code == 422
    await put(api, tenant, buckets=3, pinned=True)
    for buckets in (1, 3):
        refused = await put(as_usage, tenant, buckets=buckets)
        assert (refused.status_code, refused.json()["type"]) == (409, "routing-pinned")
    assert (await put(api, tenant, buckets=1)).json()["routing"]["pinned"] is False
    assert (await put(as_usage, tenant, buckets=2)).status_code == 200


async def test_the_router_of_the_usage_service_is_understood(api, as_usage):
    tenant = await api.create()
    service = TenantService(as_usage.http)
    assert await service.route(UUID(tenant["id"]), 4) == 200
    assert (await api.http.get(f"/v1/tenants/{tenant['id']}")).json()["routing"]["buckets"] == 4
    await put(api, tenant, buckets=4, pinned=True)
    assert await service.route(UUID(tenant["id"]), 8) == 409
    assert await service.route(UUID(int=1), 8) == 404


async def test_the_router_gets_in_by_the_credential_of_its_service(api, as_usage, monkeypatch):
    tenant = await api.create()
    client = httpx.AsyncClient
    here = as_usage.http._transport
    monkeypatch.setattr(httpx, "AsyncClient", lambda **options: client(transport=here, **options))
    settings = TenancySettings(issuer=ISSUER, client_id="app", client_secret=SECRETS["app"])
    async with tenant_service(settings) as service:
        assert service is not None
        assert await service.route(UUID(tenant["id"]), 4) == 200
    async with tenant_service(TenancySettings(issuer=ISSUER)) as nobody:
        assert nobody is None


async def test_no_other_service_may(api, start_api):
    tenant = await api.create()
    other = await start_api()
    await other.sign_in("app")
    assert (await put(other, tenant, buckets=2)).status_code == 403


async def test_an_unknown_tenant_has_no_routing(api):
    answer = await api.http.put("/v1/tenants/org-unknown/routing", json={"buckets": 2})
    assert (answer.status_code, answer.json()["type"]) == (404, "not-found")


async def test_other_services_learn_of_it(api, product):
    tenant = await api.create()
    tenant_id = UUID(tenant["id"])
    await eventually(lambda: product.directory.get(tenant_id), within=30)
    assert product.directory.get(tenant_id).routing == Routing()
    await put(api, tenant, buckets=8)
    await eventually(lambda: product.directory.get(tenant_id).routing.buckets == 8, within=30)
