"""The registry over HTTP: create, read, list, change, suspend."""

from uuid import UUID, uuid4

import asyncpg
import pytest

from tenant_service.catalogue import CATALOGUE
from tenantry import TenantStatus
from tenantry.testing import eventually


async def problem(answer, status, kind):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["type"] == kind
    return answer.json()


async def test_create_answers_with_the_tenant_and_where_it_is(api):
    answer = await api.http.post(
        "/v1/tenants",
        json={
            "slug": "acme",
            "name": "Acme",
            "tier": "standard",
            "admin_email": "a@acme.example",
            "external_id": "org-1",
            "isolation": "schema",
            "region": "eu-1",
            "plan": "pro",
            "metadata": {"crm": "4711"},
        },
    )
    assert answer.status_code == 202
    tenant = answer.json()
    assert answer.headers["location"] == f"/v1/tenants/{tenant['id']}"
    assert answer.headers["etag"] == '"1"'
    assert UUID(tenant["id"]).version == 7
    assert tenant["status"] == "requested"
    assert tenant["placement"] is None
    assert tenant["metadata"] == {"crm": "4711"}
    for reference in (tenant["id"], tenant["id"].upper(), "org-1"):
        found = await api.http.get(f"/v1/tenants/{reference}")
        assert found.status_code == 200
        assert found.json()["id"] == tenant["id"]


async def test_names_are_unique(api):
    first = await api.create(external_id="org-unique")
    body = {"name": "x", "tier": "standard", "admin_email": "a@x.example"}
    taken = await api.http.post("/v1/tenants", json={**body, "slug": first["slug"]})
    await problem(taken, 409, "slug-taken")
    taken = await api.http.post("/v1/tenants", json={**body, "slug": "another", "external_id": "org-unique"})
    await problem(taken, 409, "external-id-taken")


@pytest.mark.parametrize(
    "change",
    [
        {"slug": "admin"},
        {"slug": "Not A Slug"},
        {"slug": None},
        {"name": ""},
        {"name": "a\x00b"},
        {"tier": "no-such-tier"},
        {"external_id": str(uuid4())},
        {"external_id": uuid4().hex},
        {"external_id": "x" * 129},
        {"external_id": "a\nb"},
        {"isolation": "cluster"},
        {"admin_email": "nobody"},
        {"metadata": {"a": {"b": 1}}},
        {"metadata": {"a": "\x00"}},
        {"test_clock": "not-a-uuid"},
        {"status": "active"},
        {"id": str(uuid4())},
        {"version": 7},
    ],
)
async def test_what_is_not_valid_is_refused_as_a_whole(api, change):
    body = {"slug": "half-done", "name": "x", "tier": "standard", "admin_email": "a@x.example"} | change
    await problem(
        await api.http.post("/v1/tenants", json=body), 422, "unknown-tier" if "tier" in change else "invalid-request"
    )
    listed = await api.http.get("/v1/tenants", params={"q": "half-done"})
    assert listed.json()["items"] == []


async def test_malformed_json(api):
    answer = await api.http.post("/v1/tenants", content=b'{"slug": ', headers={"Content-Type": "application/json"})
    await problem(answer, 400, "malformed-json")


async def test_a_repeated_create_is_one_tenant(api):
    body = {"slug": "once", "name": "Once", "tier": "standard", "admin_email": "a@x.example"}
    headers = {"Idempotency-Key": "k-1"}
    first = await api.http.post("/v1/tenants", json=body, headers=headers)
    again = await api.http.post("/v1/tenants", json=body, headers=headers)
    assert (again.status_code, again.json(), again.headers["location"]) == (
        202,
        first.json(),
        first.headers["location"],
    )
    other = await api.http.post("/v1/tenants", json={**body, "name": "Twice"}, headers=headers)
    await problem(other, 409, "idempotency-conflict")
    runs = (await api.http.get(f"/v1/tenants/{first.json()['id']}/runs")).json()["items"]
    assert len(runs) == 1


async def test_a_host_selects_its_tenant(start_api):
    api = await start_api(base_domains=("tenants.test",))
    await api.sign_in()
    made = await api.create()
    own, other = f"{made['slug']}.tenants.test", "nobody.tenants.test"
    path = f"/v1/tenants/{made['id']}"
    await eventually(lambda: api.runtime.state.directory.by_slug(made["slug"]) is not None)
    assert (await api.http.get(path, headers={"Host": own})).status_code == 200
    await problem(await api.http.get(path, headers={"Host": other}), 404, "not-found")


async def test_unknown_tenants_are_not_found(api):
    unknown = str(uuid4())
    for method, path in [
        ("GET", ""),
        ("PATCH", ""),
        ("POST", "/suspend"),
        ("POST", "/reactivate"),
        ("POST", "/read-only"),
        ("GET", "/runs"),
        ("POST", f"/runs/{unknown}/retry"),
        ("POST", f"/runs/{unknown}/cancel"),
        ("GET", "/api-keys"),
        ("POST", "/api-keys"),
        ("DELETE", f"/api-keys/{unknown}"),
    ]:
        bodies = {"/suspend": {"reason": "abuse"}, "/reactivate": {"reason": "abuse"}, "/read-only": {"on": True}}
        body = bodies.get(path, {"name": "x", "scopes": ["tenant:read"]} if path == "/api-keys" else {})
        for reference in (unknown, "no-such-org"):
            answer = await api.http.request(
                method, f"/v1/tenants/{reference}{path}", json=None if method in {"GET", "DELETE"} else body
            )
            await problem(answer, 404, "not-found")


async def test_lists_are_paged_and_filtered(api):
    made = [await api.create(name=f"Paged {number}", external_id=f"paged-{number}") for number in range(5)]
    query = {"q": "PAGED", "limit": 2}
    seen, pages = [], 0
    while True:
        page = (await api.http.get("/v1/tenants", params=query)).json()
        seen += [tenant["id"] for tenant in page["items"]]
        pages += 1
        if pages == 1:
            await api.create(name="Paged late")  # stable under writes
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen[:5] == [tenant["id"] for tenant in made]
    assert len(seen) == len(set(seen)) == 6
    for wildcard in ("%", "_", "pag%d"):
        assert (await api.http.get("/v1/tenants", params={"q": wildcard})).json()["items"] == []
    assert (await api.http.get("/v1/tenants", params={"status": "purged"})).json()["items"] == []
    by_tier = (await api.http.get("/v1/tenants", params={"tier": "standard", "limit": 200})).json()["items"]
    assert {tenant["tier"] for tenant in by_tier} == {"standard"}
    await problem(await api.http.get("/v1/tenants", params={"cursor": "tampered"}), 400, "malformed-request")
    await problem(await api.http.get("/v1/tenants", params={"limit": 0}), 422, "invalid-request")
    await problem(await api.http.get("/v1/tenants", params={"status": "odd"}), 422, "invalid-request")


async def test_a_list_is_one_statement_and_a_transition_a_fixed_number(api, count_statements):
    for _ in range(3):
        tenant = await api.create()
    await api.activate(tenant["id"])
    with count_statements() as listed:
        await api.http.get("/v1/tenants", params={"limit": 200})
    assert listed.count == 1
    with count_statements() as fetched:
        await api.http.get(f"/v1/tenants/{tenant['id']}")
    assert fetched.count == 2  # the tenant, and its runs that stick
    with count_statements() as runs:
        await api.http.get(f"/v1/tenants/{tenant['id']}/runs")
    assert runs.count == 4  # the tenant, runs, steps, answers
    with count_statements() as suspended:
        await api.http.post(f"/v1/tenants/{tenant['id']}/suspend", json={"reason": "abuse"})
    # Lock, update, state document and event, audit, a run that has it confirmed, notification.
    assert suspended.count == 7  # the first of them looks whether the tenant is gone


async def test_changes(api, platform):
    tenant = await api.create(metadata={"a": "1"})
    path = f"/v1/tenants/{tenant['id']}"
    changed = await api.http.patch(path, json={"name": "New", "metadata": {"b": 2}}, headers={"If-Match": '"1"'})
    assert changed.status_code == 200
    assert changed.headers["etag"] == '"2"'
    assert (changed.json()["name"], changed.json()["metadata"]) == ("New", {"b": 2})
    stale = await api.http.patch(path, json={"name": "Newer"}, headers={"If-Match": '"1"'})
    await problem(stale, 412, "stale-version")
    same = await api.http.patch(path, json={"name": "New"})
    assert same.json()["version"] == 2
    assert await platform.audit(UUID(tenant["id"])) == ["tenant.create", "invitation.create", "tenant.update"]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "active"},
        {"slug": "other"},
        {"id": str(uuid4())},
        {"external_id": "other"},
        {"version": 9},
        {"placement": {}},
        {"suspension_reasons": []},
        {"name": None},
        {"tier": "no-such-tier"},
        {"name": 7},
    ],
)
async def test_server_owned_fields_cannot_be_changed(api, change):
    tenant = await api.create()
    path = f"/v1/tenants/{tenant['id']}"
    answer = await api.http.patch(path, json=change)
    assert answer.status_code == 422
    unchanged = (await api.http.get(path)).json()
    assert {name: unchanged[name] for name in tenant} == tenant


async def test_a_change_of_tier(api, platform):
    tenant = await api.create()
    assert (await api.http.put("/v1/tiers/gold", json={"limits": {"concurrency": 5}})).status_code == 201
    answer = await api.http.patch(f"/v1/tenants/{tenant['id']}", json={"tier": "gold"})
    assert answer.json()["tier"] == "gold"
    story = await platform.outbox("tenant.events.v1", tenant["id"])
    assert (story[-1]["type"], story[-1]["payload"]["previous_tier"]) == ("tenant.tier_changed.v1", "standard")


async def test_reasons_to_suspend_are_a_set(api, platform):
    tenant = await api.create()
    path = f"/v1/tenants/{tenant['id']}"
    early = await api.http.post(f"{path}/suspend", json={"reason": "abuse"})
    await problem(early, 409, "illegal-transition")
    await api.activate(tenant["id"])
    for reason in ("billing", "abuse", "abuse"):
        suspended = await api.http.post(f"{path}/suspend", json={"reason": reason, "note": "why"})
        assert suspended.status_code == 200
    assert suspended.json()["status"] == TenantStatus.SUSPENDED
    assert suspended.json()["suspension_reasons"] == ["abuse", "billing"]
    lifted = await api.http.post(f"{path}/reactivate", json={"reason": "billing"})
    assert (lifted.json()["status"], lifted.json()["suspension_reasons"]) == ("suspended", ["abuse"])
    lifted = await api.http.post(f"{path}/reactivate", json={"reason": "abuse"})
    assert (lifted.json()["status"], lifted.json()["suspension_reasons"]) == ("active", [])
    documents = await platform.outbox("tenant.state.v1", tenant["id"])
    assert [row["payload"]["suspension_reasons"] for row in documents[3:]] == [
        ["billing"],
        ["abuse", "billing"],
        ["abuse"],
        [],
    ]
    assert set(documents[3]["payload"]["blocked"]) == {"write", "jobs", "ingest"}
    for bad in ({}, {"reason": "boredom"}, {"reason": "abuse", "status": "active"}):
        await problem(await api.http.post(f"{path}/suspend", json=bad), 422, "invalid-request")


async def test_read_only(api):
    tenant = await api.create()
    await api.activate(tenant["id"])
    path = f"/v1/tenants/{tenant['id']}/read-only"
    assert (await api.http.post(path, json={"on": True, "reason": "backup"})).json()["read_only"] is True
    assert (await api.http.post(path, json={"on": False})).json()["read_only"] is False


async def test_the_catalogue_has_every_table(platform):
    async with platform.database.databases() as databases, databases.system.connect() as connection:
        assert await CATALOGUE.audit(connection) == []


@pytest.mark.parametrize("role", ["system", "service"])
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM system.audit_entry",
        "UPDATE system.audit_entry SET actor = ''",
        "TRUNCATE system.audit_entry",
        "DELETE FROM system.tier_version",
        "UPDATE system.tier_version SET created_by = ''",
        "DELETE FROM system.tenant",
    ],
)
async def test_nobody_changes_the_past(platform, role, statement):
    async with platform.database.connect(role) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
