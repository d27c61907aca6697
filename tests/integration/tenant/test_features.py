"""Flags over HTTP, and what a tier forbids."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tenantry.testing import eventually


async def problem(answer, status, kind):
    assert (answer.status_code, answer.json()["type"]) == (status, kind), answer.text
    return answer.json()


async def put(api, path, document):
    answer = await api.http.put(path, json=document)
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()


@pytest.fixture
def flag():
    """A flag's name of this test's own."""
    return f"f{uuid4().hex[:8]}"


async def feature(api, tenant, name, **more):
    cursor = None
    while True:
        query = {"limit": 200} | ({"cursor": cursor} if cursor else {})
        answer = await api.http.get(f"/v1/tenants/{tenant['id']}/features", params=query, **more)
        assert answer.status_code == 200, answer.text
        for item in answer.json()["items"]:
            if item["name"] == name:
                return item
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return None


async def tier_with(api, constraints):
    name = f"t{uuid4().hex[:8]}"
    await put(api, f"/v1/tiers/{name}", {"constraints": constraints})
    return name


async def test_a_flag_is_defined_and_changed(api, platform, flag):
    path, tier = f"/v1/flags/{flag}", await tier_with(api, {})
    await problem(await api.http.get(path), 404, "not-found")
    made = await api.http.put(path, json={"default": False, "rollout": {"percentage": 12.5}, "tiers": {tier: True}})
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    assert made.json() == {
        "name": flag,
        "version": 1,
        "description": "",
        "enabled": True,
        "variants": {"on": True, "off": False},
        "default": "off",
        "tiers": {tier: "on"},
        "rollout": {"variant": "on", "percentage": 12.5, "per_key": False},
        "writable_by": "operator",
    }
    body = {"rollout": {"percentage": 12.5}, "tiers": {tier: "on"}}
    assert (await put(api, path, body))["version"] == 1
    await problem(await api.http.put(path, json={}, headers={"If-Match": '"9"'}), 412, "stale-version")
    assert (await put(api, path, {"default": True}))["version"] == 2
    await problem(await api.http.put(path, json={"variants": {"on": True}, "default": "on"}), 409, "variants-fixed")
    assert [each["version"] for each in (await api.http.get(f"{path}/versions")).json()["items"]] == [2, 1]
    assert flag in [each["name"] for each in (await api.http.get("/v1/flags", params={"limit": 200})).json()["items"]]
    records = await platform.outbox("platform.state.v1", f"flag/{flag}")
    assert [(row["version"], row["payload"]["default"]) for row in records] == [(1, "off"), (2, "on")]


BODIES: tuple[dict[str, Any], ...] = (
    {"default": "blue"},
    {"default": 1},
    {"variants": {}},
    {"variants": {"a": None}, "default": "a"},
    {"variants": {"a": 1}},
    {"variants": {"a b": 1}, "default": "a b"},
    {"variants": {"a": {"x": "\x00"}}, "default": "a"},
    {"variants": {"a": 2**60}, "default": "a"},
    {"rollout": {"percentage": 101}},
    {"rollout": {"percentage": -1}},
    {"rollout": {"percentage": 0.001}},
    {"rollout": {"percentage": "50"}},
    {"rollout": {"percentage": 50, "variant": "blue"}},
    {"rollout": {}},
    {"tiers": {"gold": "blue"}},
    {"tiers": {"Not A Tier": True}},
    {"description": "\x00"},
    {"enabled": "yes"},
    {"writable_by": "all"},
    {"name": "other"},
    {"version": 7},
)


async def test_definitions_that_are_refused(api, flag):
    for body in BODIES:
        answer = await api.http.put(f"/v1/flags/{flag}", json=body)
        assert (body, answer.status_code) == (body, 422), answer.text
    answer = await api.http.put(f"/v1/flags/{flag}", content=b'{"rollout": {"percentage": NaN}}')
    assert answer.status_code in {400, 422}
    for name in ("UP", "a%20b", "-x", "x" * 65):
        await problem(await api.http.put(f"/v1/flags/{name}", json={}), 422, "invalid-request")
    await problem(await api.http.get(f"/v1/flags/{flag}"), 404, "not-found")


async def test_a_flag_is_for_tiers_that_there_are(api, flag):
    path = f"/v1/flags/{flag}"
    refused = await problem(await api.http.put(path, json={"tiers": {"nosuchtier": True}}), 422, "unknown-tier")
    assert refused["errors"] == [{"loc": ["body", "tiers", "nosuchtier"], "msg": "There is no tier 'nosuchtier'"}]
    await problem(await api.http.get(path), 404, "not-found")
    await put(api, path, {"tiers": {"standard": True}})
    await problem(await api.http.put(path, json={"tiers": {"standard": True, "no": True}}), 422, "unknown-tier")


async def test_who_decides_what_a_flag_is(api, flag):
    await put(api, f"/v1/flags/{flag}", {"variants": {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, "default": "a"})
    tenant = await api.create()
    assert (await feature(api, tenant, flag))["reason"] == "STATIC"
    rollout = {"variants": {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, "default": "a"}
    await put(api, f"/v1/flags/{flag}", rollout | {"rollout": {"variant": "b", "percentage": 100}})
    found = await feature(api, tenant, flag)
    assert (found["value"], found["variant"], found["reason"], found["source"]) == (2, "b", "SPLIT", None)
    await put(api, f"/v1/flags/{flag}", rollout | {"tiers": {"standard": "c"}})
    assert (await feature(api, tenant, flag))["value"] == 3
    await put(api, "/v1/config/tier/standard/features", {flag: "d"})
    found = await feature(api, tenant, flag)
    assert (found["value"], found["reason"], found["source"]["layer"]) == (4, "TARGETING_MATCH", "tier")
    await put(api, f"/v1/tenants/{tenant['id']}/config/features", {flag: "e"})
    assert (await feature(api, tenant, flag))["source"]["layer"] == "tenant"
    await put(api, f"/v1/flags/{flag}", rollout | {"enabled": False})
    found = await feature(api, tenant, flag)
    assert (found["value"], found["reason"]) == (1, "DISABLED")
    assert (await api.http.delete("/v1/config/tier/standard/features")).status_code == 204


async def test_an_override_ends_by_the_tenants_clock(api, flag):
    await put(api, f"/v1/flags/{flag}", {})
    start = datetime(2026, 1, 1, tzinfo=UTC)
    clock = (await api.http.post("/v1/test-clocks", json={"now": start.isoformat()})).json()
    tenant = await api.create(test_clock=clock["id"])
    setting = {"value": True, "expires_at": (start + timedelta(days=1)).isoformat()}
    base = f"/v1/tenants/{tenant['id']}/config/features"
    await put(api, base, {flag: setting})
    assert (await feature(api, tenant, flag))["value"] is True
    effective = (await api.http.get(f"{base}/effective", params={"provenance": "true"})).json()
    assert (effective["document"], effective["provenance"][f"/{flag}"]["layer"]) == ({flag: True}, "tenant")
    # The tenant's present is years ago: an end that has passed for everybody else has not for it.
    late = {"value": True, "expires_at": (start - timedelta(seconds=1)).isoformat()}
    await put(api, base, {flag: late})
    assert (await feature(api, tenant, flag))["value"] is False


async def test_settings_that_are_refused(api, flag):
    await put(api, f"/v1/flags/{flag}", {"writable_by": "tenant"})
    tenant = await api.create()
    base = f"/v1/tenants/{tenant['id']}/config/features"
    for setting in ("blue", 1, [True], {}, {"value": True, "expires_at": "soon"}, {"value": True, "until": 1}):
        answer = await api.http.put(base, json={flag: setting})
        assert (setting, answer.status_code, answer.json()["type"]) == (setting, 422, "invalid-config"), answer.text
    naive = {"value": True, "expires_at": "2030-01-01T00:00:00"}
    await problem(await api.http.put(base, json={flag: naive}), 422, "invalid-config")
    told = await problem(await api.http.put(base, json={"no-such-flag": True}), 422, "invalid-config")
    assert told["errors"] == [{"loc": ["body", "no-such-flag"], "msg": "there is no such flag"}]


async def tenant_admin(api, tenant):
    await api.activate(tenant["id"])
    await eventually(lambda: api.runtime.state.directory.resolve(tenant["id"]).status == "active")
    body = {"name": "k", "scopes": ["tenant:admin"]}
    made = (await api.http.post(f"/v1/tenants/{tenant['id']}/api-keys", json=body)).json()
    return {"Authorization": f"Bearer {made['key']}"}


async def test_a_tenant_sets_only_what_is_for_it_to_set(api, flag):
    own = f"{flag}-own"
    await put(api, f"/v1/flags/{flag}", {})
    await put(api, f"/v1/flags/{own}", {"writable_by": "tenant"})
    tenant = await api.create()
    admin = await tenant_admin(api, tenant)
    base = f"/v1/tenants/{tenant['id']}/config/features"
    await problem(await api.http.put(base, json={flag: True}, headers=admin), 403, "operator-only")
    assert (await api.http.put(base, json={own: True}, headers=admin)).status_code == 201
    await put(api, base, {own: True, flag: True})
    await problem(await api.http.delete(base, headers=admin), 403, "operator-only")
    await problem(await api.http.post(f"{base}/rollback", json={"version": 1}, headers=admin), 403, "operator-only")
    assert (await api.http.put(base, json={own: False, flag: True}, headers=admin)).status_code == 200
    found = await feature(api, tenant, own, headers=admin)
    assert found["value"] is False
    other = await api.create()
    foreign = await api.http.get(f"/v1/tenants/{other['id']}/features", headers=admin)
    await problem(foreign, 404, "not-found")


async def test_what_a_tier_forbids_stays_off(api, platform, flag):
    await put(api, f"/v1/flags/{flag}", {"writable_by": "tenant"})
    tier = await tier_with(api, {"features": {flag: False}, "branding": {"website": None}})
    tenant = await api.create(tier=tier)
    admin = await tenant_admin(api, tenant)
    base = f"/v1/tenants/{tenant['id']}/config"
    answer = await api.http.put(f"{base}/features", json={flag: True}, headers=admin)
    assert (answer.status_code, answer.json()["constrained"]) == (201, [f"/{flag}"])
    assert answer.json()["document"] == {flag: True}
    effective = (await api.http.get(f"{base}/features/effective?provenance=true", headers=admin)).json()
    assert (effective["document"], effective["constrained"]) == ({flag: False}, [f"/{flag}"])
    assert effective["provenance"][f"/{flag}"] == {"layer": "constraint", "name": tier, "version": 1}
    found = await feature(api, tenant, flag)
    assert (found["value"], found["source"]["layer"]) == (False, "constraint")
    trail = (await api.http.get(f"/v1/tenants/{tenant['id']}/audit")).json()["items"]
    entry = next(each for each in trail if each["action"] == "config.put")
    assert entry["detail"]["constrained"] == [f"/{flag}"]
    # A constraint that is null takes a key away.
    written = await put(api, f"{base}/branding", {"website": "https://acme.example", "name": "Acme"})
    assert written["constrained"] == ["/website"]
    assert (await api.http.get(f"{base}/branding/effective")).json()["document"] == {"name": "Acme"}
    # What the tier forbids ends with the tier.
    await api.http.patch(f"/v1/tenants/{tenant['id']}", json={"tier": "standard"})
    assert (await feature(api, tenant, flag))["value"] is True
    events = [row["type"] for row in await platform.outbox("tenant.events.v1", tenant["id"])]
    assert "tenant.feature_changed.v1" in events
    assert "tenant.branding_changed.v1" in events
