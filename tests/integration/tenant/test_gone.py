"""Tenants that are gone, or that never came to be: nothing is written for them, and their data can go."""

import asyncio
from uuid import UUID, uuid4

import pytest
from tests.integration.tenant.ending import active, problem, start_end

from tenant_service.dependencies import LOOKS_FOR_ITSELF
from tenant_service.runs.engine import take_turns
from tenant_service.runs.work import WORK
from tenantry import ManualClock

BELOW = "/v1/tenants/{tenant_id}"
# What a tenant that is gone may still be asked for, with what it answers then.
NOT_REFUSED = {
    "POST": {
        f"{BELOW}/purge": {202},
        f"{BELOW}/purge-again": {202, 409},
        f"{BELOW}/legal-hold": {200, 409},
        f"{BELOW}/runs/{{run_id}}/cancel": {404},
        f"{BELOW}/runs/{{run_id}}/retry": {404},
    }
}
HOLD = {"on": False, "reason": "case closed"}


@pytest.fixture
async def end(start_api, platform, tmp_path):
    return await start_end(start_api, platform, tmp_path)


async def cancelled(end, **more):
    """A tenant whose provisioning was given up before it had begun."""
    tenant = await end.api.create(**more)
    run = await end.run(tenant["id"], "provision")
    assert (await end.post(tenant["id"], f"runs/{run['id']}/cancel")).status_code == 200
    return tenant


async def purging(end):
    tenant = await active(end)
    await end.post(tenant["id"], "offboard", {"grace_days": 0, "export": False})
    await end.turn()
    return tenant


async def purged(end):
    tenant = await purging(end)
    await end.purge(tenant["id"])
    return tenant


def address(path, tenant_id, names):
    known = {"tenant_id": tenant_id, "domain": "acme.example"}
    return path.format(**{name: known.get(name, str(uuid4())) for name in names})


def writes(openapi):
    """Every operation of the document below a tenant that changes something: its method, path and parameters."""
    for path, operations in openapi["paths"].items():
        if not path.startswith(BELOW):
            continue
        for method in operations.keys() - {"get", "head", "parameters"}:
            given = [*operations[method].get("parameters", ()), *operations.get("parameters", ())]
            yield method.upper(), path, [each["name"] for each in given if each["in"] == "path"]


@pytest.mark.parametrize("gone", [cancelled, purging, purged])
async def test_no_route_writes_for_a_tenant_that_is_gone(end, gone):
    tenant = await gone(end)
    before = await end.get(tenant["id"])
    openapi = (await end.api.http.get("/openapi.json")).json()
    swept = sorted(writes(openapi))
    assert len(swept) > 30
    for method, path, names in swept:
        if path in NOT_REFUSED.get(method, {}):
            continue
        answer = await end.api.http.request(method, address(path, tenant["id"], names), json={})
        assert (answer.status_code, answer.json()["type"]) == (409, "tenant-gone"), f"{method} {path}: {answer.text}"
    assert await end.get(tenant["id"]) == before
    for path, answers in NOT_REFUSED["POST"].items():
        body = HOLD if path.endswith("legal-hold") else None
        answer = await end.api.http.post(address(path, tenant["id"], ["tenant_id", "run_id"]), json=body)
        assert answer.status_code in answers, f"{path}: {answer.text}"


async def test_the_sweep_knows_every_route_that_looks_for_itself(end):
    openapi = (await end.api.http.get("/openapi.json")).json()
    known = {path for _, path, _ in writes(openapi)}
    assert known >= LOOKS_FOR_ITSELF
    assert NOT_REFUSED["POST"].keys() <= LOOKS_FOR_ITSELF


async def test_a_tenant_that_lives_is_refused_nothing(end):
    tenant = await active(end)
    answer = await end.api.http.patch(f"/v1/tenants/{tenant['id']}", json={"name": "Other"})
    assert (answer.status_code, answer.json()["name"]) == (200, "Other")
    problem(await end.api.http.patch(f"/v1/tenants/{uuid4()}", json={"name": "x"}), 404, "not-found")
    for reference in ("a%00b", "x" * 200, "%ff", "%25"):
        answer = await end.api.http.patch(f"/v1/tenants/{reference}", json={"name": "x"})
        assert answer.status_code in {400, 404, 422}, answer.text


async def test_to_others_a_tenant_that_is_gone_is_unknown(end):
    tenant, other = await purged(end), await active(end)
    made = await end.post(other["id"], "api-keys", {"name": "k", "scopes": ["tenant:admin"]})
    own = {"Authorization": f"Bearer {made.json()['key']}"}
    for path in ("api-keys", "members", "domains"):
        answer = await end.api.http.post(f"/v1/tenants/{tenant['id']}/{path}", json={}, headers=own)
        assert answer.status_code in {404, 422}, answer.text
        assert answer.json()["type"] != "tenant-gone"


async def test_a_provisioning_that_is_cancelled_closes_every_way_in(end):
    tenant = await end.api.create()
    id_ = tenant["id"]
    key = (await end.post(id_, "api-keys", {"name": "k", "scopes": ["tenant:read"]})).json()
    invited = await end.post(id_, "invitations", {"email": "b@example.org", "roles": ["admin"]})
    grant = (await end.post(id_, "support-access", {"reason": "look", "minutes": 10})).json()
    run = await end.run(id_, "provision")
    assert (await end.post(id_, f"runs/{run['id']}/cancel")).status_code == 200
    assert (await end.get(id_))["status"] == "cancelled"
    invitations = (await end.api.http.get(f"/v1/tenants/{id_}/invitations")).json()["items"]
    assert {each["state"] for each in invitations} == {"revoked"}
    assert invited.json()["id"] in {each["id"] for each in invitations}
    (listed,) = (await end.api.http.get(f"/v1/tenants/{id_}/api-keys")).json()["items"]
    assert listed["revoked_at"] is not None
    assert (await end.api.http.get(f"/v1/tenants/{id_}/support-access/{grant['id']}")).json()["ended_at"] is not None
    for credential in (key, grant):
        assert (await end.platform.outbox("tenant.credentials.v1", credential["id"]))[-1]["payload"] is None
    trail = await end.platform.audit(UUID(id_))
    assert {"tenant.cancel_provisioning", "invitation.revoke", "api_key.revoke", "support_access.end"} <= set(trail)


async def test_the_data_of_a_cancelled_tenant_can_be_purged(end):
    tenant = await cancelled(end, external_id=f"org-{uuid4().hex}")
    id_ = tenant["id"]
    began = await end.post(id_, "purge")
    assert (began.status_code, began.json()["status"]) == (202, "cancelled"), began.text
    assert (await end.post(id_, "purge")).status_code == 202
    runs = (await end.api.http.get(f"/v1/tenants/{id_}/runs")).json()["items"]
    assert [run["kind"] for run in runs].count("offboard") == 1
    problem(await end.post(id_, f"runs/{runs[0]['id']}/cancel"), 409, "illegal-transition")
    await end.purge(id_)
    gone = await end.get(id_)
    assert (gone["status"], gone["name"], gone["external_id"]) == ("purged", "(purged)", None)
    certificate = (await end.api.http.get(f"/v1/tenants/{id_}/purge-certificate")).json()["certificate"]
    own = {table["table"]: table for table in certificate["services"]["tenant"]["tables"]}
    assert own["system.invitation"]["rows_after"] == 0
    assert (await end.run(id_))["state"] == "succeeded"
    assert await end.requests(id_, "tenant.export") == []
    taken = await end.api.http.post(
        "/v1/tenants",
        json={"slug": tenant["slug"], "name": "n", "tier": "standard", "admin_email": "a@example.org"},
    )
    assert taken.status_code == 409
    async with end.platform.database.connect() as connection:
        held = await connection.fetchval(
            "SELECT tenant_id FROM system.quarantined_name WHERE name = $1", tenant["slug"]
        )
    assert held == UUID(id_)


async def test_a_legal_hold_keeps_the_data_of_a_cancelled_tenant(end):
    tenant = await end.api.create()
    id_ = tenant["id"]
    await end.post(id_, "legal-hold", {"on": True, "reason": "case 7"})
    run = await end.run(id_, "provision")
    await end.post(id_, f"runs/{run['id']}/cancel")
    problem(await end.post(id_, "purge"), 409, "legal-hold")
    assert (await end.post(id_, "legal-hold", HOLD)).status_code == 200
    assert (await end.post(id_, "purge")).status_code == 202


async def test_a_provisioning_that_is_being_undone_is_waited_for(end, start_api):
    api = await start_api(ManualClock(end.clock.now()), required_services=["app"])
    await api.sign_in()
    tenant = await api.create()
    async with api.runtime.transactions.begin() as session:
        await take_turns(session, WORK, api.runtime.settings.saga(), end.clock.now())
    (run,) = (await api.http.get(f"/v1/tenants/{tenant['id']}/runs")).json()["items"]
    answer = await api.http.post(f"/v1/tenants/{tenant['id']}/runs/{run['id']}/cancel")
    assert answer.json()["state"] == "compensating", answer.text
    problem(await api.http.post(f"/v1/tenants/{tenant['id']}/purge"), 409, "run-being-undone")


async def test_orders_and_the_worker_do_not_wait_for_each_other_crosswise(end):
    """A worker holds its run when it comes to the tenant; so does whoever takes an offboarding back."""
    tenants = [await active(end) for _ in range(4)]
    for _ in range(5):
        for tenant in tenants:
            assert (await end.post(tenant["id"], "offboard", {"grace_days": 1})).status_code == 202
        answers = await asyncio.gather(
            end.turn(),
            *(end.post(tenant["id"], what) for tenant in tenants for what in ("cancel-offboarding", "purge")),
        )
        assert {answer.status_code for answer in answers[1:]} <= {200, 202, 409}
        for tenant in tenants:
            step = (await end.run(tenant["id"]))["steps"][0]
            assert step["error"] is None, step
            await end.post(tenant["id"], "cancel-offboarding")
            assert (await end.get(tenant["id"]))["status"] == "active"
