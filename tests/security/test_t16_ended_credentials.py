"""T16: a role that is taken away, a removal, a signing-out and a revoked key end what was given out for them."""

import asyncio
import time

import pytest
from broker import open_broker
from people import check_problem

from tenantry.events import KafkaDirectory, OutboxRelay
from tenantry.identity import Identifier, InvalidToken, TokenVerifier
from tenantry.testing import eventually

LIMIT_SECONDS = 1.0


async def scopes_of(people, token):
    answer = await (await people.client(token)).get("/v1/me")
    return answer.json()["scopes"] if answer.status_code == 200 else answer.status_code


async def test_a_lesser_role_narrows_sessions_and_tokens_at_once(people):
    tenant = await people.tenant()
    person = await people.join(tenant, "admin")
    token = await people.token(person, tenant)
    path = f"/v1/tenants/{tenant}/members"
    assert (await person.http.get(path)).status_code == 200
    changed = await people.http.patch(f"{path}/{person.member_id}", json={"roles": ["viewer"]})
    assert changed.status_code == 200
    check_problem(await person.http.get(path), 403, "forbidden")
    check_problem(await (await people.client(token)).get(path), 403, "forbidden")
    assert (await person.http.get("/v1/me")).json()["scopes"] == ["tenant:read"]
    await people.http.patch(f"{path}/{person.member_id}", json={"roles": ["admin"]})
    assert (await person.http.get(path)).status_code == 200
    assert await scopes_of(people, token) == ["tenant:admin", "tenant:billing"]


async def test_a_token_of_a_lesser_role_does_not_grow(people):
    tenant = await people.tenant()
    person = await people.join(tenant, "viewer")
    token = await people.token(person, tenant)
    path = f"/v1/tenants/{tenant}/members/{person.member_id}"
    await people.http.patch(path, json={"roles": ["admin"]})
    assert await scopes_of(people, token) == ["tenant:read"]
    assert await scopes_of(people, await people.token(person, tenant)) == ["tenant:admin", "tenant:billing"]


async def test_a_removal_ends_sessions_and_tokens_of_this_tenant_alone(people):
    a, b = await people.tenant(), await people.tenant()
    person = await people.join(a, "owner", email="removed@example.org")
    body = {"email": "removed@example.org", "roles": ["viewer"]}
    in_b = (await people.http.post(f"/v1/tenants/{b}/members", json=body)).json()["id"]
    of_a, of_b = await people.token(person, a), await people.token(person, b)
    assert (await people.http.delete(f"/v1/tenants/{b}/members/{in_b}")).status_code == 204
    assert await scopes_of(people, of_b) == 401
    assert await scopes_of(people, of_a) == ["tenant:admin", "tenant:billing"]
    assert (await person.http.get("/v1/me")).status_code == 200
    check_problem(await people.exchange(person, b), 400, "invalid-target")
    await people.join(a, "owner")
    assert (await people.http.delete(f"/v1/tenants/{a}/members/{person.member_id}")).status_code == 204
    assert await scopes_of(people, of_a) == 401
    assert (await person.http.get("/v1/me")).status_code == 401
    check_problem(await people.exchange(person, a), 401, "unauthenticated")


async def test_signing_out_ends_the_tokens_of_the_session(people):
    a, b = await people.tenant(), await people.tenant()
    person = await people.join(a, "viewer", email="leaving@example.org")
    await people.http.post(f"/v1/tenants/{b}/members", json={"email": "leaving@example.org", "roles": ["viewer"]})
    tokens = [await people.token(person, a), await people.token(person, b), await people.token(person, b)]
    assert [await scopes_of(people, token) for token in tokens] == [["tenant:read"]] * 3
    below = await people.rows("SELECT id FROM system.session WHERE tenant_id = $1 AND parent_id IS NOT NULL", b)
    assert len(below) == 1  # one session below the cookie's, however many tokens
    assert (await person.http.delete("/v1/sessions/current")).status_code == 204
    assert [await scopes_of(people, token) for token in tokens] == [401] * 3


async def test_revoking_a_key_ends_its_tokens(people):
    tenant = await people.tenant()
    path = f"/v1/tenants/{tenant}/api-keys"
    key = (await people.http.post(path, json={"name": "k", "scopes": ["tenant:write"]})).json()
    form = {"grant_type": "urn:tenantry:api-key", "api_key": key["key"], "audience": "tenant"}
    token = (await people.http.post("/oauth/token", data=form)).json()["access_token"]
    assert await scopes_of(people, token) == ["tenant:write"]
    await people.http.delete(f"{path}/{key['id']}")
    assert await scopes_of(people, token) == 401


@pytest.mark.parametrize("attempt", range(4))
async def test_a_removal_and_a_sign_in_at_once_leave_no_session(people, attempt):
    tenant = await people.tenant()
    person = await people.join(tenant, "viewer", email=f"racing-{attempt}@example.org")
    mailer = await people.machine("mailer")
    body = {"email": person.email, "tenant_id": tenant}
    codes = [(await mailer.post("/v1/people/sign-in-codes", json=body)).json()["code"] for _ in range(3)]
    browsers = [await people.client() for _ in codes]
    await asyncio.gather(
        people.http.delete(f"/v1/tenants/{tenant}/members/{person.member_id}"),
        *(browser.post("/v1/sessions", json={"code": code}) for browser, code in zip(browsers, codes, strict=True)),
        people.exchange(person, tenant),
    )
    live = await people.rows("SELECT id FROM system.session WHERE tenant_id = $1 AND ended_at IS NULL", tenant)
    assert live == []


async def test_a_suspended_tenant_gets_no_tokens_and_its_people_still_leave_it(people):
    a, b = await people.tenant(), await people.tenant()
    person = await people.join(a, "owner", email="stranded@example.org")
    await people.http.post(f"/v1/tenants/{b}/members", json={"email": "stranded@example.org", "roles": ["viewer"]})
    await people.http.post(f"/v1/tenants/{a}/suspend", json={"reason": "abuse"})
    check_problem(await people.exchange(person, a), 403, "tenant-suspended")
    check_problem(await person.http.get(f"/v1/tenants/{a}"), 403, "tenant-suspended")
    assert [each["tenant_id"] for each in (await person.http.get("/v1/me")).json()["memberships"]] == [a, b]
    await people.token(person, b)
    answer = await person.http.post("/v1/sessions/current/switch", json={"tenant_id": b})
    assert answer.status_code == 201


@pytest.fixture
async def kafka(kafka_bootstrap, kafka_prefix):
    async with open_broker(kafka_bootstrap, kafka_prefix) as broker:
        yield broker.settings


async def test_other_services_hear_of_it_within_a_second(people, kafka):
    """Through the outbox, the relay and Kafka to what another service knows: demotion, removal, end of support."""
    service = KafkaDirectory(kafka)
    verifier = TokenVerifier(service.keys, issuer="http://tenant.test", audience="app")
    identifier = Identifier(directory=service.directory, tokens=verifier, credentials=service.credentials)

    def ask(token):
        headers = [(b"authorization", b"Bearer " + token.encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": b""}
        try:
            return sorted(identifier.identify(scope).principal.scopes)
        except InvalidToken:
            return None

    tenant = await people.tenant()
    databases = people.runtime.transactions._databases
    relay = asyncio.create_task(OutboxRelay("tenant", databases.system, kafka).run())
    try:
        await service.start()
        person = await people.join(tenant, "owner")
        await people.join(tenant, "owner")
        token = await people.token(person, tenant, audience="app")
        grant = await people.support(tenant)
        support = (await people.exchange_support(grant["id"], audience="app")).json()["access_token"]
        await eventually(lambda: ask(token) == ["tenant:admin", "tenant:billing"], within=60)
        await eventually(lambda: ask(support) == ["tenant:read"], within=60)
        member = f"/v1/tenants/{tenant}/members/{person.member_id}"
        figures = {}
        for name, method, path, body, seen in (
            ("demotion", "PATCH", member, {"roles": ["viewer"]}, lambda: ask(token) == []),
            ("removal", "DELETE", member, None, lambda: ask(token) is None),
            (
                "end of support",
                "DELETE",
                f"/v1/tenants/{tenant}/support-access/{grant['id']}",
                None,
                lambda: ask(support) is None,
            ),
        ):
            answer = await people.http.request(method, path, json=body)
            answered = time.monotonic()
            assert answer.is_success
            await eventually(seen, within=10, interval=0.005)
            figures[name] = time.monotonic() - answered
    finally:
        relay.cancel()
        await asyncio.wait([relay])
        await service.stop()
    assert max(figures.values()) < LIMIT_SECONDS, figures
