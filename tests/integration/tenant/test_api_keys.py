"""API keys over HTTP: no more than their maker may, and from one key to the next without a gap."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from people import check_problem, run_people
from sqlalchemy import text


@pytest.fixture
async def people(database, tmp_path):
    async with run_people(database, tmp_path) as people:
        yield people


async def make(http, tenant, *scopes, **more):
    return await http.post(
        f"/v1/tenants/{tenant}/api-keys", json={"name": "k", "scopes": list(scopes or ["tenant:read"]), **more}
    )


async def works(people, key, tenant):
    answer = await (await people.client(key)).get(f"/v1/tenants/{tenant}")
    return answer.status_code == 200


async def test_a_key_allows_no_more_than_its_maker_may(people):
    tenant, other = await people.tenant(), await people.tenant()
    admin = await people.join(tenant, "admin")
    assert (await make(admin.http, tenant, "tenant:admin", "tenant:billing")).status_code == 201
    key = (await make(people.http, tenant, "tenant:admin")).json()["key"]
    machine = await people.client(key)
    assert (await make(machine, tenant, "tenant:write", "tenant:read")).status_code == 201
    check_problem(await make(machine, tenant, "tenant:billing"), 403, "beyond-issuer")
    check_problem(await make(machine, other, "tenant:read"), 404, "not-found")
    for role in ("member", "viewer", "billing"):
        check_problem(await make((await people.join(tenant, role)).http, tenant), 403, "forbidden")
    for scope in ("platform", "service", "identity:deliver", "tenant:everything"):
        check_problem(await make(people.http, tenant, scope), 422, "invalid-request")


async def test_a_key_that_is_made_with_a_key_does_not_outlive_it(people):
    tenant = await people.tenant()
    end = people.clock.now() + timedelta(days=1)
    key = (await make(people.http, tenant, "tenant:admin", expires_at=end.isoformat())).json()["key"]
    machine = await people.client(key)
    check_problem(await make(machine, tenant), 403, "beyond-issuer")
    later = (end + timedelta(seconds=1)).isoformat()
    check_problem(await make(machine, tenant, expires_at=later), 403, "beyond-issuer")
    assert (await make(machine, tenant, expires_at=end.isoformat())).status_code == 201
    form = {"grant_type": "urn:tenantry:api-key", "api_key": key, "audience": "tenant"}
    token = (await people.http.post("/oauth/token", data=form)).json()["access_token"]
    check_problem(await make(await people.client(token), tenant), 403, "beyond-issuer")


async def test_a_revoked_key_takes_what_was_made_with_it_along(people):
    tenant = await people.tenant()
    path = f"/v1/tenants/{tenant}/api-keys"
    leaked = (await make(people.http, tenant, "tenant:admin")).json()
    beside = (await make(people.http, tenant, "tenant:admin")).json()
    child = (await make(await people.client(leaked["key"]), tenant, "tenant:admin")).json()
    grandchild = (await make(await people.client(child["key"]), tenant, "tenant:admin")).json()
    # Whoever holds the key can have another one replaced, and then holds that one.
    taken = (await (await people.client(child["key"])).post(f"{path}/{beside['id']}/rotate", json={})).json()
    assert (child["made_with"], grandchild["made_with"], taken["made_with"]) == (
        leaked["id"],
        child["id"],
        child["id"],
    )
    stranger = (await make(people.http, tenant)).json()
    assert (await people.http.delete(f"{path}/{leaked['id']}")).status_code == 204
    for key in (leaked, child, grandchild, taken):
        assert not await works(people, key["key"], tenant)
        form = {"grant_type": "urn:tenantry:api-key", "api_key": key["key"], "audience": "app"}
        check_problem(await people.http.post("/oauth/token", data=form), 401, "invalid-api-key")
    assert await works(people, stranger["key"], tenant)
    shown = {each["id"]: each["revoked_at"] for each in (await people.http.get(path)).json()["items"]}
    assert all(shown[key["id"]] for key in (leaked, child, grandchild, taken))
    trail = (await people.http.get(f"/v1/tenants/{tenant}/audit", params={"action": "api_key.revoke"})).json()["items"]
    assert {each["target"]: each["detail"].get("because_of") for each in trail} == {
        leaked["id"]: None,
        **{key["id"]: leaked["id"] for key in (child, grandchild, taken)},
    }
    last = await records(people)
    assert all(last[key["id"]] is None for key in (leaked, child, grandchild, taken))
    assert last[stranger["id"]] is not None


async def test_the_end_of_a_rotation_is_the_end_of_what_was_made_with_the_key(people):
    tenant = await people.tenant()
    path = f"/v1/tenants/{tenant}/api-keys"
    old = (await make(people.http, tenant, "tenant:admin")).json()
    machine = await people.client(old["key"])
    child = (await make(machine, tenant, "tenant:read")).json()
    soon = people.clock.now() + timedelta(seconds=30)
    sooner = (await make(machine, tenant, "tenant:read", expires_at=soon.isoformat())).json()
    new = (await machine.post(f"{path}/{old['id']}/rotate", json={"overlap_seconds": 60})).json()
    assert new["made_with"] is None
    shown = {each["id"]: each for each in (await people.http.get(path)).json()["items"]}
    until = people.clock.now() + timedelta(seconds=60)
    assert datetime.fromisoformat(shown[child["id"]]["expires_at"]) == until
    assert datetime.fromisoformat(shown[sooner["id"]]["expires_at"]) == soon
    assert datetime.fromisoformat((await records(people))[child["id"]]["expires_at"]) == until
    trail = (await people.http.get(f"/v1/tenants/{tenant}/audit", params={"action": "api_key.limit"})).json()["items"]
    assert [(each["target"], each["detail"]["because_of"]) for each in trail] == [(child["id"], old["id"])]
    assert await works(people, child["key"], tenant)
    people.clock.advance(timedelta(seconds=60))
    assert not await works(people, child["key"], tenant)
    assert await works(people, new["key"], tenant)
    at_once = (await make(await people.client(new["key"]), tenant, "tenant:read")).json()
    await people.http.post(f"{path}/{new['id']}/rotate", json={"overlap_seconds": 0})
    assert (await records(people))[at_once["id"]] is None


async def test_a_key_that_is_made_while_its_maker_is_revoked_is_not_left_behind(people):
    tenant = await people.tenant()
    path = f"/v1/tenants/{tenant}/api-keys"
    for _ in range(5):
        maker = (await make(people.http, tenant, "tenant:admin")).json()
        machine = await people.client(maker["key"])
        made, *_ = await asyncio.gather(make(machine, tenant), people.http.delete(f"{path}/{maker['id']}"))
        assert made.status_code in {201, 401}
    items = (await people.http.get(path)).json()["items"]
    assert not [each["id"] for each in items if each["revoked_at"] is None]


async def records(people):
    """The last record of each credential on its way to the services; None is a tombstone."""
    async with people.runtime.transactions.begin() as session:
        rows = await session.execute(
            text("SELECT key, payload FROM system.outbox WHERE topic = 'tenant.credentials.v1' ORDER BY version")
        )
        return {row.key: None if row.payload is None else json.loads(row.payload) for row in rows}


async def test_a_key_is_rotated_with_an_overlap(people):
    tenant = await people.tenant()
    path = f"/v1/tenants/{tenant}/api-keys"
    old = (await make(people.http, tenant, "tenant:write", "tenant:billing")).json()
    rotate = f"{path}/{old['id']}/rotate"
    once = {"Idempotency-Key": "rotate"}
    new = await people.http.post(rotate, json={"overlap_seconds": 60}, headers=once)
    assert (new.status_code, new.json()["name"], new.json()["scopes"]) == (201, "k", ["tenant:billing", "tenant:write"])
    check_problem(
        await people.http.post(rotate, json={"overlap_seconds": 60}, headers=once), 409, "secret-already-shown"
    )
    check_problem(await people.http.post(rotate, json={}), 409, "api-key-ended")
    assert await works(people, old["key"], tenant)
    assert await works(people, new.json()["key"], tenant)
    shown = {each["id"]: each for each in (await people.http.get(path)).json()["items"]}
    assert shown[old["id"]]["replaced_by"] == new.json()["id"]
    assert datetime.fromisoformat(shown[old["id"]]["expires_at"]) == people.clock.now() + timedelta(seconds=60)
    people.clock.advance(timedelta(seconds=60))
    assert not await works(people, old["key"], tenant)
    assert await works(people, new.json()["key"], tenant)


async def test_a_key_is_rotated_at_once(people):
    tenant = await people.tenant()
    path = f"/v1/tenants/{tenant}/api-keys"
    old = (await make(people.http, tenant)).json()
    answers = await asyncio.gather(
        *(people.http.post(f"{path}/{old['id']}/rotate", json={"overlap_seconds": 0}) for _ in range(3))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    assert not await works(people, old["key"], tenant)
    revoked = (await make(people.http, tenant)).json()
    await people.http.delete(f"{path}/{revoked['id']}")
    check_problem(await people.http.post(f"{path}/{revoked['id']}/rotate", json={}), 409, "api-key-ended")
    check_problem(await people.http.post(f"{path}/{uuid4()}/rotate", json={}), 404, "not-found")
    for body in (
        {"overlap_seconds": -1},
        {"overlap_seconds": 10**9},
        {"overlap_seconds": "soon"},
        {"scopes": ["platform"]},
    ):
        check_problem(await people.http.post(f"{path}/{old['id']}/rotate", json=body), 422, "invalid-request")


async def test_a_rotation_gives_nobody_more_than_they_may(people):
    tenant = await people.tenant()
    strong = (await make(people.http, tenant, "tenant:admin", "tenant:billing")).json()
    weak = await people.client((await make(people.http, tenant, "tenant:admin")).json()["key"])
    answer = await weak.post(f"/v1/tenants/{tenant}/api-keys/{strong['id']}/rotate", json={})
    check_problem(answer, 403, "beyond-issuer")
    assert await works(people, strong["key"], tenant)


async def test_when_a_key_was_last_used(people):
    tenant = await people.tenant()
    path = f"/v1/tenants/{tenant}/api-keys"
    key = (await make(people.http, tenant)).json()

    async def last_used():
        (item,) = (await people.http.get(path)).json()["items"]
        return item["last_used_at"] and datetime.fromisoformat(item["last_used_at"])

    assert await last_used() is None
    form = {"grant_type": "urn:tenantry:api-key", "api_key": key["key"], "audience": "app"}
    first = people.clock.now()
    await people.http.post("/oauth/token", data=form)
    assert await last_used() == first
    people.clock.advance(timedelta(seconds=59))
    await people.http.post("/oauth/token", data=form)
    assert await last_used() == first  # at most a write a minute
    people.clock.advance(timedelta(seconds=1))
    service = await people.machine("app")
    used = {key["id"]: people.clock.now().isoformat(), str(uuid4()): people.clock.now().isoformat()}
    assert (await service.post("/v1/api-keys/used", json={"last_used_at": used})).status_code == 204
    assert await last_used() == people.clock.now()
    future = {key["id"]: (people.clock.now() + timedelta(days=9)).isoformat()}
    await service.post("/v1/api-keys/used", json={"last_used_at": future})
    past = {key["id"]: datetime(2020, 1, 1, tzinfo=UTC).isoformat()}
    await service.post("/v1/api-keys/used", json={"last_used_at": past})
    assert await last_used() == people.clock.now()
    wrong: tuple[dict[str, Any], ...] = (
        {},
        {"last_used_at": {}},
        {"last_used_at": {"x": "y"}},
        {"last_used_at": {key["id"]: 7}},
    )
    for body in wrong:
        check_problem(await service.post("/v1/api-keys/used", json=body), 422, "invalid-request")
    check_problem(await people.http.post("/v1/api-keys/used", json={"last_used_at": used}), 403, "forbidden")


async def test_the_token_of_a_key_is_the_keys(people):
    tenant = await people.tenant()
    key = (await make(people.http, tenant, "tenant:write")).json()
    form = {"grant_type": "urn:tenantry:api-key", "api_key": key["key"], "audience": "tenant"}
    answer = (await people.http.post("/oauth/token", data=form)).json()
    assert answer["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    me = (await (await people.client(answer["access_token"])).get("/v1/me")).json()
    assert (me["kind"], me["subject"], me["tenant_id"]) == ("api_key", f"api-key:{key['id']}", tenant)


async def test_where_tokens_come_from_is_published(people):
    metadata = (await (await people.client()).get("/.well-known/oauth-authorization-server")).json()
    assert metadata["issuer"] == "http://tenant.test"
    assert metadata["token_endpoint"] == "http://tenant.test/oauth/token"
    keys = await people.http.get(metadata["jwks_uri"])
    assert keys.json()["keys"]
    assert "urn:ietf:params:oauth:grant-type:token-exchange" in metadata["grant_types_supported"]
