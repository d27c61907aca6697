"""Tokens in exchange: one tenant to a token, and good until its end whatever happens to the keys."""

from datetime import timedelta
from uuid import uuid4

import pytest
from people import EXCHANGE, check_problem, run_people

from tenantry.testing import eventually

SESSION = {"grant_type": EXCHANGE, "subject_token_type": "urn:tenantry:session", "audience": "tenant"}


@pytest.fixture
async def people(database, tmp_path):
    async with run_people(database, tmp_path) as people:
        yield people


async def test_a_token_of_several_tenants_is_refused_by_the_name_of_its_claim(people):
    a, b = await people.tenant(), await people.tenant()
    now = people.clock.now()
    claims = {
        "iss": "http://tenant.test",
        "aud": "tenant",
        "sub": "user:1",
        "iat": int(now.timestamp()),
        "exp": int(now.timestamp()) + 60,
        "scope": "tenant:read",
        "kind": "user",
    }
    sign = people.runtime.issuer.signer.sign
    for wrong, name in (
        ({"tenant_ids": [a, b]}, "tenant_ids"),
        ({"tenants": [a]}, "tenants"),
        ({"tenant_id": [a]}, "tenant_id"),
    ):
        answer = await (await people.client(sign(claims | wrong, now))).get(f"/v1/tenants/{a}")
        check_problem(answer, 401, "unauthenticated")
        assert name in answer.json()["detail"]
    assert (await (await people.client(sign(claims | {"tenant_id": a}, now))).get(f"/v1/tenants/{a}")).is_success


@pytest.mark.parametrize(
    ("change", "status", "kind"),
    [
        ({"tenant_id": None}, 422, "invalid-request"),
        ({"tenant_id": ""}, 422, "invalid-request"),
        ({"tenant_id": str(uuid4())}, 400, "invalid-target"),
        ({"audience": "elsewhere"}, 400, "invalid-target"),
        ({"scope": "platform"}, 400, "invalid-scope"),
        ({"scope": "tenant:write"}, 400, "invalid-scope"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}, 422, "invalid-request"),
        ({"subject_token": "ts_" + "x" * 43}, 401, "invalid-subject-token"),
        ({"subject_token": ""}, 422, "invalid-request"),
        (
            {"actor_token": "x", "actor_token_type": "urn:ietf:params:oauth:token-type:access_token"},
            422,
            "invalid-request",
        ),
        ({"actor_token": "x"}, 422, "invalid-request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, 422, "invalid-request"),
    ],
)
async def test_tokens_that_are_not_exchanged(people, change, status, kind):
    tenant = await people.tenant()
    person = await people.join(tenant, "viewer")
    form = {**SESSION, "tenant_id": tenant, **change}
    answer = await person.http.post(
        "/oauth/token", data={name: value for name, value in form.items() if value is not None}
    )
    check_problem(answer, status, kind)


async def test_the_session_is_a_cookie_with_its_token_or_is_named(people):
    tenant = await people.tenant(external_id=f"org-{uuid4().hex[:8]}x")
    person = await people.join(tenant, "viewer")
    form = {**SESSION, "tenant_id": tenant}
    stranger = await people.client()
    check_problem(await stranger.post("/oauth/token", data=form), 401, "unauthenticated")
    assert (await stranger.post("/oauth/token", data={**form, "subject_token": person.secret})).is_success
    del person.http.headers["X-CSRF-Token"]
    check_problem(await person.http.post("/oauth/token", data=form), 403, "csrf-token")
    key = await people.http.post(f"/v1/tenants/{tenant}/api-keys", json={"name": "k", "scopes": ["tenant:read"]})
    answer = await stranger.post("/oauth/token", data={**form, "subject_token": key.json()["key"]})
    check_problem(answer, 401, "invalid-subject-token")
    operator = await people.http.post("/oauth/token", data=form)
    check_problem(operator, 401, "invalid-subject-token")


async def test_a_rotation_of_keys_cuts_no_token_short(people):
    tenant = await people.tenant()
    person = await people.join(tenant, "viewer")
    old = await people.token(person, tenant)
    holder = await people.client(old)
    assert (await people.http.post("/v1/signing-keys/rotate")).status_code == 201
    people.clock.advance(timedelta(seconds=61))

    async def signed_anew():
        token = await people.token(person, tenant)
        return token if token.partition(".")[0] != old.partition(".")[0] else None  # its header names another key

    new = await eventually(signed_anew)
    assert (await (await people.client(new)).get("/v1/me")).is_success
    people.clock.advance(timedelta(seconds=538))
    assert (await holder.get("/v1/me")).is_success
    people.clock.advance(timedelta(seconds=2))
    check_problem(await holder.get("/v1/me"), 401, "unauthenticated")  # its own end, and no sooner
