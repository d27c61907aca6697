"""Invitations over HTTP: codes that work once, for whom they were made, and for no longer than they should."""

import asyncio
import hashlib
from datetime import timedelta

import pytest
from people import check_problem, run_people


@pytest.fixture
async def people(database, tmp_path):
    async with run_people(database, tmp_path) as people:
        yield people


async def redeem(people, code):
    return await (await people.client()).post("/v1/sessions", json={"code": code})


async def test_an_invitation_makes_a_member_and_signs_in(people):
    tenant = await people.tenant()
    invitation = await people.invite(tenant, "member", "billing", email="Guest@example.org")
    assert (invitation["state"], invitation["email"], invitation["roles"]) == (
        "open",
        "guest@example.org",
        ["billing", "member"],
    )
    assert invitation["url"].endswith(f"/signin?code={invitation['code']}")
    answer = await redeem(people, invitation["code"])
    assert answer.status_code == 201
    assert (answer.json()["tenant_id"], answer.json()["scopes"]) == (tenant, ["tenant:billing", "tenant:write"])
    one = (await people.http.get(f"/v1/tenants/{tenant}/invitations/{invitation['id']}")).json()
    assert (one["state"], "code" in one) == ("accepted", False)
    assert one["member_id"] == await people.member_id(tenant, "guest@example.org")
    check_problem(await redeem(people, invitation["code"]), 401, "invalid-code")
    actions = [entry["action"] for entry in await people.trail(tenant)]
    assert actions[-3:] == ["invitation.create", "invitation.accept", "session.create"]


async def test_the_first_owner_is_invited_with_the_tenant(people):
    tenant = await people.tenant(active=False, admin_email="Founder@Example.org")
    (invitation,) = (await people.http.get(f"/v1/tenants/{tenant}/invitations")).json()["items"]
    assert (invitation["email"], invitation["roles"], invitation["delivery"]) == (
        "founder@example.org",
        ["owner"],
        "mailer",
    )
    mailer = await people.machine("mailer")
    path = f"/v1/tenants/{tenant}/invitations/{invitation['id']}/code"
    check_problem(await people.http.post(path), 403, "forbidden")  # an operator is no mailer
    check_problem(await (await people.machine("app")).post(path), 403, "forbidden")
    mail = (await mailer.post(path)).json()
    assert mail["email"] == "founder@example.org"
    check_problem(await redeem(people, mail["code"]), 403, "tenant-not-active")  # the tenant is being provisioned
    await people.tenant()  # provisions every tenant that waits
    signed_in = await redeem(people, mail["code"])
    assert signed_in.json()["tenant_id"] == tenant  # the code was not used up


async def test_no_code_and_no_address_is_in_a_table_an_event_or_the_trail(people):
    tenant = await people.tenant()
    invitation = await people.invite(tenant, "viewer", email="canary-person@example.org")
    (row,) = await people.rows("SELECT code_sha256 FROM system.invitation WHERE id = $1", invitation["id"])
    assert row["code_sha256"] == hashlib.sha256(invitation["code"].encode()).digest()
    await redeem(people, invitation["code"])
    for table in ("outbox", "audit_entry", "idempotency_key", "session", "sign_in_code"):
        for (text,) in [tuple(each.values()) for each in await people.rows(f"SELECT t::text FROM system.{table} t")]:
            assert "canary-person" not in text
            assert invitation["code"] not in text
    invited = [data for event, data in await people.events(tenant) if event == "tenant.user_invited.v1"]
    assert {"invitation_id", "delivery", "expires_at"} <= invited[-1].keys()


async def test_sending_again_ends_the_last_code(people):
    tenant = await people.tenant()
    invitation = await people.invite(tenant, "viewer")
    path = f"/v1/tenants/{tenant}/invitations/{invitation['id']}"
    once = {"Idempotency-Key": "again"}
    again = await people.http.post(f"{path}/resend", headers=once)
    assert again.status_code == 200
    check_problem(await people.http.post(f"{path}/resend", headers=once), 409, "secret-already-shown")
    check_problem(await redeem(people, invitation["code"]), 401, "invalid-code")
    assert (await redeem(people, again.json()["code"])).status_code == 201
    check_problem(await people.http.post(f"{path}/resend"), 409, "invitation-closed")
    check_problem(await people.http.delete(path), 409, "invitation-closed")


async def test_a_revoked_or_expired_invitation_lets_nobody_in(people):
    tenant = await people.tenant()
    revoked, expired = await people.invite(tenant, "viewer"), await people.invite(tenant, "viewer")
    path = f"/v1/tenants/{tenant}/invitations"
    for _ in range(2):
        assert (await people.http.delete(f"{path}/{revoked['id']}")).status_code == 204
    people.clock.advance(timedelta(days=7) - timedelta(seconds=1))
    people.http.headers["Authorization"] = f"Bearer {await people.client_token('operator')}"
    assert (await people.http.get(f"{path}/{expired['id']}")).json()["state"] == "open"
    people.clock.advance(timedelta(seconds=1))
    answers = [await redeem(people, code) for code in (revoked["code"], expired["code"], "tv_" + "x" * 43)]
    for answer in answers:
        check_problem(answer, 401, "invalid-code")
    assert len({answer.json()["detail"] for answer in answers}) == 1
    # An expired one is in nobody's way, and may be sent again.
    check_problem(await people.http.post(f"{path}/{revoked['id']}/resend"), 409, "invitation-closed")
    renewed = await people.invite(tenant, "viewer", email=expired["email"])
    assert (await redeem(people, renewed["code"])).status_code == 201


async def test_an_address_is_invited_once(people):
    tenant = await people.tenant()
    member = await people.join(tenant, "viewer")
    await people.invite(tenant, "viewer", email="twice@example.org")
    path = f"/v1/tenants/{tenant}/invitations"
    body = {"email": "TWICE@example.org", "roles": ["owner"]}
    check_problem(await people.http.post(path, json=body), 409, "already-invited")
    check_problem(await people.http.post(path, json=body | {"email": member.email}), 409, "already-member")
    answers = await asyncio.gather(
        *(people.http.post(path, json={"email": "race@example.org", "roles": ["viewer"]}) for _ in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


@pytest.mark.parametrize("attempt", range(3))
async def test_of_many_who_accept_one_invitation_at_once_one_gets_in(people, attempt):
    tenant = await people.tenant()
    invitation = await people.invite(tenant, "viewer")
    answers = await asyncio.gather(*(redeem(people, invitation["code"]) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 401, 401, 401, 401]
    members = (await people.http.get(f"/v1/tenants/{tenant}/members")).json()["items"]
    assert [each["email"] for each in members] == [invitation["email"]]


async def test_one_person_may_accept_the_invitations_of_two_tenants_at_once(people):
    tenants = [await people.tenant(), await people.tenant()]
    codes = [(await people.invite(each, "viewer", email="two@example.org"))["code"] for each in tenants]
    answers = await asyncio.gather(*(redeem(people, code) for code in codes))
    assert [answer.json()["tenant_id"] for answer in answers] == tenants
    assert len(await people.rows("SELECT 1 FROM system.person WHERE email = 'two@example.org'")) == 1


async def test_who_is_a_member_already_keeps_their_roles(people):
    tenant = await people.tenant()
    invitation = await people.invite(tenant, "owner", email="known@example.org")
    body = {"email": "known@example.org", "roles": ["viewer"]}
    assert (await people.http.post(f"/v1/tenants/{tenant}/members", json=body)).status_code == 201
    assert (await redeem(people, invitation["code"])).json()["scopes"] == ["tenant:read"]


async def test_an_invitation_is_its_tenants_own(people):
    tenant, other = await people.tenant(), await people.tenant()
    invitation = await people.invite(tenant, "viewer")
    stranger = await people.join(other, "owner")
    foreign = f"/v1/tenants/{other}/invitations/{invitation['id']}"
    for method, path in (("GET", foreign), ("DELETE", foreign), ("POST", f"{foreign}/resend")):
        check_problem(await stranger.http.request(method, path), 404, "not-found")
    mailer = await people.machine("mailer")
    check_problem(await mailer.post(f"{foreign}/code"), 404, "not-found")
    own = f"/v1/tenants/{tenant}/invitations/{invitation['id']}"
    check_problem(await mailer.post(f"{own}/code"), 409, "invitation-not-for-mail")


async def test_a_member_signs_in_again_by_mail(people):
    a, b = await people.tenant(), await people.tenant()
    await people.join(a, "viewer", email="again@example.org")
    await people.http.post(f"/v1/tenants/{b}/members", json={"email": "again@example.org", "roles": ["member"]})
    mailer, path = await people.machine("mailer"), "/v1/people/sign-in-codes"
    check_problem(await people.http.post(path, json={"email": "again@example.org"}), 403, "forbidden")
    first = await people.sign_in((await mailer.post(path, json={"email": "Again@example.org"})).json()["code"])
    assert first.tenant_id == a
    code = (await mailer.post(path, json={"email": "again@example.org", "tenant_id": b})).json()["code"]
    second = await people.sign_in(code)
    assert (second.tenant_id, second.answer["scopes"]) == (b, ["tenant:write"])
    check_problem(await redeem(people, code), 401, "invalid-code")
    for body in ({"email": "nobody@example.org"}, {"email": "again@example.org", "tenant_id": await people.tenant()}):
        check_problem(await mailer.post(path, json=body), 404, "not-found")
    for body in ({}, {"email": "x"}, {"email": "again@example.org", "next": "https://evil.example"}):
        check_problem(await mailer.post(path, json=body), 422, "invalid-request")


async def test_a_code_goes_to_a_tenant_that_is_open(people):
    closed, opened = await people.tenant(), await people.tenant()
    await people.join(closed, "viewer", email="pick@example.org")
    await people.join(opened, "viewer", email="pick@example.org")
    await people.http.post(f"/v1/tenants/{closed}/suspend", json={"reason": "abuse"})
    mailer, path = await people.machine("mailer"), "/v1/people/sign-in-codes"
    code = (await mailer.post(path, json={"email": "pick@example.org"})).json()["code"]
    assert (await people.sign_in(code)).tenant_id == opened
    code = (await mailer.post(path, json={"email": "pick@example.org", "tenant_id": closed})).json()["code"]
    check_problem(await redeem(people, code), 403, "tenant-suspended")


async def test_the_page_signs_a_member_in(people):
    tenant = await people.tenant()
    invitation = await people.invite(tenant, "viewer")
    browser = await people.client()
    shown = await browser.get(invitation["url"])
    assert invitation["code"] in shown.text  # and nothing was used up by a scanner that looked
    answer = await browser.post("/signin", data={"code": invitation["code"]})
    assert answer.status_code == 303
    assert "__Host-tenantry" in answer.headers["set-cookie"]
