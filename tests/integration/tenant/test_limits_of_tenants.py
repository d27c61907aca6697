"""Limits of single tenants: what an operator may say, what holds then and why, and that services work by it at once."""

import pytest

from tenantry.config import LIMITS
from tenantry.testing import eventually

TIER = {"limits": {"requests": {"write": {"rate": 20, "burst": 40}}, "connections": 2}}
SOON = 1.0


async def problem(answer, status, kind):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["type"] == kind, answer.text
    return answer.json()


@pytest.fixture
async def tenant(api):
    """A tenant on a tier of its own."""
    await api.http.put("/v1/tiers/limited", json=TIER)
    return await api.create(tier="limited")


@pytest.fixture
def path(tenant):
    return f"/v1/tenants/{tenant['id']}/config/{LIMITS}"


async def test_what_holds_says_where_it_comes_from(api, tenant, path):
    written = await api.http.put(path, json={"requests": {"write": {"rate": 50}}, "concurrency": 9})
    assert written.status_code == 201, written.text
    found = (await api.http.get(f"{path}/effective", params={"provenance": True})).json()
    assert found["document"] == {
        "requests": {"write": {"rate": 50, "burst": 40}}, "concurrency": 9, "connections": 2
    }  # fmt: skip
    sources = {pointer: (source["layer"], source["name"]) for pointer, source in found["provenance"].items()}
    own, tier = ("tenant", tenant["id"]), ("tier", "limited")
    assert sources == {
        "/requests/write/rate": own, "/requests/write/burst": tier, "/concurrency": own, "/connections": tier
    }  # fmt: skip
    await api.http.delete(path)
    assert (await api.http.get(f"{path}/effective")).json()["document"] == TIER["limits"]


async def test_a_tier_bounds_what_a_tenant_is_given(api, tenant, path):
    await api.http.put("/v1/tiers/limited", json={**TIER, "constraints": {LIMITS: {"connections": 3}}})
    answer = (await api.http.put(path, json={"connections": 8, "concurrency": 9})).json()
    assert answer["constrained"] == ["/connections"]
    found = (await api.http.get(f"{path}/effective", params={"provenance": True})).json()
    assert found["document"]["connections"] == 3
    assert found["provenance"]["/connections"]["layer"] == "constraint"


@pytest.mark.parametrize(
    ("document", "loc"),
    [
        ({"jobz": 3}, ["jobz"]),
        ({"requests": {"raed": {"rate": 1}}}, ["requests", "raed"]),
        ({"requests": {"write": {"burst": 5}}}, ["requests", "write"]),
        ({"requests": {"write": {"rate": 0}}}, ["requests", "write", "rate"]),
        ({"concurrency": 0}, ["concurrency"]),
        ({"weight": 1000}, ["weight"]),
    ],
)
async def test_what_has_no_meaning_is_refused_with_its_place(api, path, document, loc):
    refused = await problem(await api.http.put(path, json=document), 422, "invalid-config")
    assert loc[0] in refused["errors"][0]["loc"]
    assert (await api.http.get(path)).status_code == 404
    force = await api.http.put(path, json=document, params={"force": True})
    assert force.status_code == 422


async def test_a_constraint_must_be_limits_too(api):
    bad = {**TIER, "constraints": {LIMITS: {"requests": {"write": {"rate": None}}}}}
    refused = await problem(await api.http.put("/v1/tiers/bounded", json=bad), 422, "invalid-request")
    assert refused["errors"][0]["loc"][:3] == ["body", "constraints", LIMITS]


async def test_a_tier_has_its_limits_in_one_place(api, tenant):
    refused = await problem(
        await api.http.put(f"/v1/config/tier/limited/{LIMITS}", json={"connections": 9}), 409, "limits-of-tier"
    )
    assert "/v1/tiers/limited" in refused["detail"]
    await problem(
        await api.http.put(f"/v1/config-schemas/{LIMITS}", json={"type": "object"}), 409, "built-in-namespace"
    )
    for place in ("platform", "region/eu-1"):
        assert (await api.http.put(f"/v1/config/{place}/{LIMITS}", json={"weight": 2})).status_code in {200, 201}
        await api.http.delete(f"/v1/config/{place}/{LIMITS}")


async def test_a_tenants_administrators_see_their_limits_and_do_not_set_them(api, tenant, path):
    await api.activate(tenant["id"])
    directory = api.runtime.state.directory
    await eventually(lambda: directory.resolve(tenant["id"]).status == "active")
    made = await api.http.post(f"/v1/tenants/{tenant['id']}/api-keys", json={"name": "k", "scopes": ["tenant:admin"]})
    admin = {"Authorization": f"Bearer {made.json()['key']}"}
    assert (await api.http.get(f"{path}/effective", headers=admin)).json()["document"] == TIER["limits"]
    await problem(await api.http.put(path, json={"connections": 50}, headers=admin), 403, "operator-only")


async def test_services_work_by_it_within_a_second(api, product, tenant, path):
    await eventually(lambda: product.directory.resolve(tenant["id"]) is not None, within=60)
    known = product.directory.resolve(tenant["id"])
    assert product.limiter.limits_of(known).requests["write"].rate == 20
    await api.http.put(path, json={"requests": {"write": {"rate": 50}}, "connections": 5})
    await eventually(lambda: product.limiter.limits_of(known).requests["write"].rate == 50, within=SOON)
    assert product.limiter.connections_of(known).cap == 5
    await api.http.put("/v1/tiers/limited", json={"limits": {"connections": 1, "concurrency": 4}})
    await eventually(lambda: product.limiter.limits_of(known).concurrency == 4, within=SOON)
    assert product.limiter.connections_of(known).cap == 5
    await api.http.delete(path)
    await eventually(lambda: product.limiter.connections_of(known).cap == 1, within=SOON)
