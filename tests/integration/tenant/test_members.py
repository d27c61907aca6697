"""Members over HTTP: who may do what, races, and that a credential follows a role."""

import asyncio
from uuid import uuid4

import pytest
from people import check_problem, run_people


@pytest.fixture
async def people(database, tmp_path):
    async with run_people(database, tmp_path) as people:
        yield people


async def test_members_are_added_listed_changed_and_removed(people):
    tenant = await people.tenant()
    path = f"/v1/tenants/{tenant}/members"
    body = {"email": " Ann@Example.ORG ", "roles": ["viewer", "billing", "viewer"], "name": "Ann"}
    once = {"Idempotency-Key": "add-ann"}
    made, again = [await people.http.post(path, json=body, headers=once) for _ in range(2)]
    assert (made.status_code, made.json()) == (201, again.json())
    ann = made.json()
    assert (ann["email"], ann["roles"], ann["version"]) == ("ann@example.org", ["billing", "viewer"], 1)
    check_problem(await people.http.post(path, json=body), 409, "already-member")

    one = f"{path}/{ann['id']}"
    assert (await people.http.get(one)).json() == ann
    changed = await people.http.patch(one, json={"roles": ["member"], "name": None}, headers={"If-Match": '"1"'})
    assert (changed.json()["roles"], changed.json()["name"], changed.headers["etag"]) == (["member"], None, '"2"')
    check_problem(
        await people.http.patch(one, json={"roles": ["viewer"]}, headers={"If-Match": '"1"'}), 412, "stale-version"
    )
    assert (await people.http.patch(one, json={"roles": ["member"]})).json()["version"] == 2  # nothing differs

    assert (await people.http.delete(one)).status_code == 204
    check_problem(await people.http.delete(one), 404, "not-found")
    check_problem(await people.http.get(one), 404, "not-found")
    actions = [entry["action"] for entry in await people.trail(tenant)]
    assert [action for action in actions if action.startswith("member.")] == [
        "member.add",
        "member.change",
        "member.remove",
    ]
    events = [event for event, _ in await people.events(tenant)]
    assert [event for event in events if "member" in event] == [
        "tenant.member_added.v1",
        "tenant.member_role_changed.v1",
        "tenant.member_removed.v1",
    ]


async def test_a_list_of_members_has_pages(people):
    tenant = await people.tenant()
    path = f"/v1/tenants/{tenant}/members"
    for number in range(5):
        body = {"email": f"page-{number}@example.org", "roles": ["viewer"]}
        assert (await people.http.post(path, json=body)).status_code == 201
    seen, cursor = [], None
    while True:
        page = (await people.http.get(path, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [each["email"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"page-{number}@example.org" for number in range(5)]
    other = (await people.http.get(f"/v1/tenants/{tenant}/invitations", params={"limit": 1})).json()
    check_problem(await people.http.get(path, params={"cursor": other["next_cursor"] or "x"}), 400, "malformed-request")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": "a@example.org"},
        {"email": "a@example.org", "roles": []},
        {"email": "a@example.org", "roles": ["root"]},
        {"email": "a@example.org", "roles": "owner"},
        {"email": "not an address", "roles": ["viewer"]},
        {"email": "a@example.org", "roles": ["viewer"], "tenant_id": str(uuid4())},
        {"email": "a@example.org", "roles": ["viewer"], "name": "\x00"},
    ],
)
@pytest.mark.parametrize("noun", ["members", "invitations"])
async def test_bad_members_and_invitations(people, noun, body):
    tenant = await people.tenant(active=False)
    check_problem(await people.http.post(f"/v1/tenants/{tenant}/{noun}", json=body), 422, "invalid-request")


@pytest.mark.parametrize("body", [{}, {"roles": None}, {"roles": []}, {"email": "b@example.org"}, {"version": 7}])
async def test_bad_changes_of_a_member(people, body):
    tenant = await people.tenant()
    member = await people.join(tenant, "viewer")
    answer = await people.http.patch(f"/v1/tenants/{tenant}/members/{member.member_id}", json=body)
    check_problem(answer, 422, "invalid-request")


async def test_who_manages_members(people):
    tenant, other = await people.tenant(), await people.tenant()
    path = f"/v1/tenants/{tenant}/members"
    owner = await people.join(tenant, "owner")
    admin = await people.join(tenant, "admin")
    for role in ("member", "viewer", "billing"):
        person = await people.join(tenant, role)
        check_problem(await person.http.get(path), 403, "forbidden")
        check_problem(
            await person.http.post(path, json={"email": "x@example.org", "roles": ["viewer"]}), 403, "forbidden"
        )
    stranger = await people.join(other, "owner")
    for method, url in (("GET", path), ("POST", path), ("GET", f"{path}/{owner.member_id}")):
        foreign = await stranger.http.request(method, url, json={} if method == "POST" else None)
        assert foreign.status_code in {404, 422}
    check_problem(await stranger.http.get(path), 404, "not-found")
    check_problem(await (await people.machine("app")).get(path), 403, "forbidden")

    assert (await admin.http.get(path)).status_code == 200
    viewer = (await admin.http.post(path, json={"email": "v@example.org", "roles": ["viewer"]})).json()
    assert (await admin.http.patch(f"{path}/{viewer['id']}", json={"roles": ["admin"]})).status_code == 200
    for refused in (
        await admin.http.post(path, json={"email": "o@example.org", "roles": ["owner"]}),
        await admin.http.patch(f"{path}/{viewer['id']}", json={"roles": ["owner"]}),
        await admin.http.patch(f"{path}/{owner.member_id}", json={"roles": ["owner", "admin"]}),
        await admin.http.patch(f"{path}/{owner.member_id}", json={"roles": ["viewer"]}),
        await admin.http.patch(f"{path}/{admin.member_id}", json={"roles": ["owner"]}),
        await admin.http.delete(f"{path}/{owner.member_id}"),
        await admin.http.post(f"/v1/tenants/{tenant}/invitations", json={"email": "o@example.org", "roles": ["owner"]}),
    ):
        check_problem(refused, 403, "owner-required")
    assert (await owner.http.patch(f"{path}/{viewer['id']}", json={"roles": ["owner"]})).status_code == 200


async def test_an_api_key_manages_no_owners(people):
    tenant = await people.tenant()
    owner = await people.join(tenant, "owner")
    answer = await owner.http.post(f"/v1/tenants/{tenant}/api-keys", json={"name": "k", "scopes": ["tenant:admin"]})
    machine = await people.client(answer.json()["key"])
    path = f"/v1/tenants/{tenant}/members"
    assert (await machine.get(path)).status_code == 200
    check_problem(await machine.delete(f"{path}/{owner.member_id}"), 403, "owner-required")


async def test_the_last_owner_stays(people):
    tenant = await people.tenant()
    owner = await people.join(tenant, "owner")
    one = f"/v1/tenants/{tenant}/members/{owner.member_id}"
    check_problem(await people.http.delete(one), 409, "last-owner")
    check_problem(await owner.http.patch(one, json={"roles": ["admin"]}), 409, "last-owner")
    await people.join(tenant, "owner")
    assert (await people.http.patch(one, json={"roles": ["admin"]})).status_code == 200


@pytest.mark.parametrize("attempt", range(3))
async def test_two_owners_who_unmake_each_other_at_once_leave_one(people, attempt):
    tenant = await people.tenant()
    a, b = await people.join(tenant, "owner"), await people.join(tenant, "owner")
    path = f"/v1/tenants/{tenant}/members"
    answers = await asyncio.gather(
        people.http.patch(f"{path}/{a.member_id}", json={"roles": ["viewer"]}),
        people.http.delete(f"{path}/{b.member_id}")
        if attempt % 2
        else people.http.patch(f"{path}/{b.member_id}", json={"roles": ["viewer"]}),
    )
    assert sorted(answer.is_success for answer in answers) == [False, True]
    check_problem(next(answer for answer in answers if not answer.is_success), 409, "last-owner")
    owners = [each for each in (await people.http.get(path)).json()["items"] if "owner" in each["roles"]]
    assert len(owners) == 1


async def test_a_person_sees_their_memberships_and_switches(people):
    a, b, c = await people.tenant(), await people.tenant(), await people.tenant()
    person = await people.join(a, "owner", email="both@example.org")
    await people.http.post(f"/v1/tenants/{b}/members", json={"email": "Both@example.org", "roles": ["viewer"]})
    me = (await person.http.get("/v1/me")).json()
    assert (me["tenant_id"], me["kind"], me["scopes"]) == (a, "session", ["tenant:admin", "tenant:billing"])
    assert [(each["tenant_id"], each["roles"]) for each in me["memberships"]] == [(a, ["owner"]), (b, ["viewer"])]

    token = await people.token(person, b)
    of_token = (await (await people.client(token)).get("/v1/me")).json()
    assert (of_token["tenant_id"], of_token["kind"], of_token["scopes"]) == (b, "user", ["tenant:read"])
    assert of_token["memberships"] == me["memberships"]
    assert of_token["subject"] != me["subject"]  # a tenant cannot tell who else is this person
    check_problem(await person.http.get(f"/v1/tenants/{b}"), 404, "not-found")

    csrf = person.http.headers.pop("X-CSRF-Token")
    check_problem(await person.http.post("/v1/sessions/current/switch", json={"tenant_id": b}), 403, "csrf-token")
    person.http.headers["X-CSRF-Token"] = csrf
    for nowhere in (c, str(uuid4()), "org-none"):
        answer = await person.http.post("/v1/sessions/current/switch", json={"tenant_id": nowhere})
        check_problem(answer, 404, "not-found")
    switched = await person.http.post("/v1/sessions/current/switch", json={"tenant_id": b})
    assert (switched.status_code, switched.json()["tenant_id"]) == (201, b)
    check_problem(await person.http.get("/v1/me"), 401, "unauthenticated")  # the old cookie


async def test_operators_and_keys_have_no_memberships(people):
    tenant = await people.tenant()
    me = (await people.http.get("/v1/me")).json()
    assert (me["subject"], me["tenant_id"], me["memberships"]) == ("operator", None, [])
    answer = await people.http.post(f"/v1/tenants/{tenant}/api-keys", json={"name": "k", "scopes": ["tenant:read"]})
    me = (await (await people.client(answer.json()["key"])).get("/v1/me")).json()
    assert (me["kind"], me["tenant_id"], me["memberships"]) == ("api_key", tenant, [])


@pytest.mark.parametrize("noun", ["members", "invitations"])
async def test_an_identity_provider_takes_people_over(database, tmp_path, noun):
    async with run_people(database, tmp_path, identity="external") as people:
        tenant = await people.tenant()
        path = f"/v1/tenants/{tenant}/{noun}"
        body = {"email": "a@example.org", "roles": ["viewer"]}
        check_problem(await people.http.post(path, json=body), 409, "identity-external")
        check_problem(await people.http.get(path), 409, "identity-external")
        check_problem(await people.http.delete(f"{path}/{uuid4()}"), 409, "identity-external")
        assert await people.rows("SELECT 1 FROM system.invitation WHERE tenant_id = $1", tenant) == []
        key = await people.http.post(f"/v1/tenants/{tenant}/api-keys", json={"name": "k", "scopes": ["tenant:read"]})
        assert key.status_code == 201
        assert (await people.http.get(f"/v1/tenants/{tenant}/domains")).status_code == 200
        assert (await people.http.get(f"/v1/tenants/{tenant}/support-access")).status_code == 200
