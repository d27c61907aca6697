"""T18: support access has a reason, an end, two names on everything that is done, and opens no second door."""

from datetime import timedelta
from uuid import uuid4

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from people import check_problem

from tenantry.identity import Identifier, InvalidToken, TokenVerifier


async def read_claims(people, token):
    keys = KeySet.import_key_set((await people.http.get("/.well-known/jwks.json")).json())
    return jwt.decode(token, keys, ["ES256"]).claims


async def support_token(people, tenant, **more):
    """A grant, and a token that was exchanged for it."""
    grant = await people.support(tenant, **more)
    answer = await people.exchange_support(grant["id"])
    assert answer.status_code == 200, answer.text
    return grant, answer.json()["access_token"]


async def test_a_token_of_support_names_the_tenant_the_grant_and_the_operator(people):
    tenant = await people.tenant()
    grant, token = await support_token(people, tenant, minutes=5)
    claims = await read_claims(people, token)
    assert (claims["tenant_id"], claims["sub"], claims["credential_id"]) == (
        tenant,
        f"support:{grant['id']}",
        grant["id"],
    )
    assert (claims["act"], claims["kind"], claims["scope"]) == ({"sub": "operator"}, "support", "tenant:read")
    assert claims["exp"] <= int((people.clock.now() + timedelta(minutes=5)).timestamp())
    support = await people.client(token)
    assert (await support.get(f"/v1/tenants/{tenant}")).status_code == 200
    me = (await support.get("/v1/me")).json()
    assert (me["actor"], me["tenant_id"], me["scopes"]) == ("operator", tenant, ["tenant:read"])
    check_problem(await support.get(f"/v1/tenants/{await people.tenant()}"), 404, "not-found")
    check_problem(await support.get("/v1/tenants"), 403, "forbidden")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": ""},
        {"reason": "   "},
        {"reason": "a\x00b"},
        {"reason": "r", "minutes": 31},
        {"reason": "r", "minutes": 0},
        {"reason": "r", "access": "admin"},
        {"reason": "r", "scopes": ["platform"]},
        {"reason": "r", "operator": "somebody-else"},
    ],
)
async def test_a_reason_and_a_time_box_are_required(people, body):
    tenant = await people.tenant(active=False)
    check_problem(await people.http.post(f"/v1/tenants/{tenant}/support-access", json=body), 422, "invalid-request")


async def test_writing_is_asked_for_and_stated(people):
    tenant = await people.tenant()
    grant, _ = await support_token(people, tenant)
    answer = await people.exchange_support(grant["id"], scope="tenant:write")
    check_problem(answer, 400, "invalid-scope")
    grant, token = await support_token(people, tenant, access="write")
    assert grant["scopes"] == ["tenant:read", "tenant:write"]
    assert (await read_claims(people, token))["scope"] == "tenant:read tenant:write"
    check_problem(await people.exchange_support(grant["id"], scope="tenant:admin"), 400, "invalid-scope")
    check_problem(await people.exchange_support(grant["id"], scope="platform"), 400, "invalid-scope")


async def test_only_the_operator_who_was_let_in_gets_tokens(people):
    tenant = await people.tenant()
    grant = await people.support(tenant)
    check_problem(await people.exchange_support(grant["id"], operator="second-operator"), 401, "support-access-ended")
    check_problem(await people.exchange_support(grant["id"], operator="app"), 401, "invalid-subject-token")
    check_problem(await people.exchange_support(str(uuid4())), 401, "support-access-ended")
    check_problem(await people.exchange_support("x"), 401, "invalid-subject-token")
    check_problem(await people.exchange_support(grant["id"], tenant_id=tenant), 422, "invalid-request")
    check_problem(await people.exchange_support(grant["id"], actor_token="x"), 401, "unauthenticated")


async def test_nobody_but_an_operator_lets_anybody_in(people):
    tenant = await people.tenant()
    path = f"/v1/tenants/{tenant}/support-access"
    owner = await people.join(tenant, "owner")
    for http in (owner.http, await people.machine("app"), await people.machine("mailer")):
        check_problem(await http.post(path, json={"reason": "r"}), 403, "forbidden")


async def test_a_support_token_opens_no_second_door(people):
    """No grant, key, member, invitation or domain, no token in exchange; not even with write access."""
    tenant = await people.tenant()
    grant, token = await support_token(people, tenant, access="write")
    support = await people.client(token)
    root = f"/v1/tenants/{tenant}"
    attempts = [
        ("POST", f"{root}/support-access", {"reason": "r"}),
        ("GET", f"{root}/support-access", None),
        ("POST", f"{root}/api-keys", {"name": "k", "scopes": ["tenant:read"]}),
        ("GET", f"{root}/api-keys", None),
        ("POST", f"{root}/members", {"email": "x@example.org", "roles": ["viewer"]}),
        ("GET", f"{root}/members", None),
        ("POST", f"{root}/invitations", {"email": "x@example.org", "roles": ["viewer"]}),
        ("POST", f"{root}/domains", {"domain": "support.example.com"}),
        ("POST", "/v1/sign-in-codes", {}),
        ("POST", "/v1/people/sign-in-codes", {"email": "x@example.org"}),
        ("PATCH", root, {"name": "taken over"}),
    ]
    for method, path, body in attempts:
        answer = await support.request(method, path, json=body)
        check_problem(answer, 403, "forbidden")
    again = await people.exchange_support(grant["id"], actor_token=token)
    check_problem(again, 401, "invalid-subject-token")
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:tenantry:session",
        "tenant_id": tenant,
        "audience": "app",
    }
    check_problem(await support.post("/oauth/token", data=form), 401, "invalid-subject-token")


async def test_the_tenant_sees_it_and_may_end_it(people):
    tenant, other = await people.tenant(), await people.tenant()
    owner, viewer = await people.join(tenant, "owner"), await people.join(tenant, "viewer")
    stranger = await people.join(other, "owner")
    grant, token = await support_token(people, tenant, reason="ticket 4711")
    path = f"/v1/tenants/{tenant}/support-access"
    (seen,) = (await owner.http.get(path)).json()["items"]
    assert (seen["operator"], seen["reason"], seen["ended_at"]) == ("operator", "ticket 4711", None)
    assert "support_access.start" in [entry["action"] for entry in await people.trail(tenant)]
    one = f"{path}/{grant['id']}"
    check_problem(await viewer.http.delete(one), 403, "forbidden")
    check_problem(await stranger.http.delete(one), 404, "not-found")
    check_problem(await stranger.http.delete(f"/v1/tenants/{other}/support-access/{grant['id']}"), 404, "not-found")
    support = await people.client(token)
    assert (await support.get(f"/v1/tenants/{tenant}")).status_code == 200
    ended = await owner.http.delete(one)
    assert (ended.status_code, ended.json()["ended_by"]) == (200, f"user:{owner.member_id}")
    check_problem(await support.get(f"/v1/tenants/{tenant}"), 401, "unauthenticated")
    check_problem(await people.exchange_support(grant["id"]), 401, "support-access-ended")
    assert (await owner.http.delete(one)).json() == ended.json()


async def test_an_expired_grant_is_refused_in_the_middle_of_a_request(people):
    """The middleware asks again every second while a response streams, and asks just this."""
    tenant = await people.tenant()
    _, token = await support_token(people, tenant, minutes=1)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"authorization", b"Bearer " + token.encode())],
        "query_string": b"",
    }
    assert people.runtime.identifier.identify(scope).principal.actor == "operator"
    people.clock.advance(timedelta(minutes=1))
    with pytest.raises(InvalidToken):
        people.runtime.identifier.identify(scope)


async def test_the_grant_decides_and_not_the_token(people):
    """A token that says that it lives longer than its grant, and allows more, is worth what the grant is worth."""
    tenant = await people.tenant()
    grant, token = await support_token(people, tenant, minutes=1)
    claims = await read_claims(people, token)
    forged = people.runtime.issuer.signer.sign(
        {**claims, "exp": claims["iat"] + 600, "scope": "tenant:read tenant:write tenant:admin"}, people.clock.now()
    )
    support = await people.client(forged)
    assert (await support.get("/v1/me")).json()["scopes"] == ["tenant:read"]
    check_problem(await support.get(f"/v1/tenants/{tenant}/members"), 403, "forbidden")
    people.clock.advance(timedelta(minutes=1))
    check_problem(await support.get("/v1/me"), 401, "unauthenticated")
    elsewhere = people.runtime.issuer.signer.sign({**claims, "tenant_id": await people.tenant()}, people.clock.now())
    check_problem(await (await people.client(elsewhere)).get("/v1/me"), 401, "unauthenticated")
    assert grant["id"]


async def test_every_entry_under_support_has_both_names(people):
    tenant = await people.tenant()
    grant, token = await support_token(people, tenant, access="write")
    support = await people.client(token)
    assert (await support.delete(f"/v1/tenants/{tenant}/support-access/{grant['id']}")).status_code == 200
    entry = (await people.trail(tenant))[-1]
    assert (entry["action"], entry["actor"], entry["actor_kind"]) == (
        "support_access.end",
        f"support:{grant['id']}",
        "support",
    )
    assert (entry["impersonator"], entry["credential_id"]) == ("operator", grant["id"])


async def test_another_service_refuses_it_from_what_was_published(people):
    """By the record alone, with no call: what a service holds of `tenant.credentials.v1`."""
    tenant = await people.tenant()
    grant = await people.support(tenant)
    token = (await people.exchange_support(grant["id"], audience="app")).json()["access_token"]
    state = people.runtime.state
    verifier = TokenVerifier(state.keys, issuer="http://tenant.test", audience="app", clock=people.clock)
    identifier = Identifier(directory=state.directory, tokens=verifier, credentials=state.credentials)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"authorization", b"Bearer " + token.encode())],
        "query_string": b"",
    }
    assert identifier.identify(scope).principal.actor == "operator"
    await people.http.delete(f"/v1/tenants/{tenant}/support-access/{grant['id']}")
    with pytest.raises(InvalidToken, match="ended"):
        identifier.identify(scope)
    rows = await people.rows(
        "SELECT payload FROM system.outbox WHERE topic = 'tenant.credentials.v1' AND key = $1 ORDER BY version",
        grant["id"],
    )
    assert [row["payload"] is None for row in rows] == [False, True]
