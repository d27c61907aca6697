"""T3: a service that calls another acts for one tenant, the one that it has signed, and the callee holds it to that."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from fastapi import FastAPI
from issuer import Issuer
from joserfc import jws
from joserfc.jwk import ECKey
from local_state import GivenState
from security_tenants import A, B, make_tenant

from tenantry import (
    CurrentPrincipal,
    CurrentTenant,
    ManualClock,
    StartupRefused,
    Tenancy,
    TenancySettings,
    current_tenant,
    tenant_scope,
)
from tenantry.http import ServiceTransport
from tenantry.identity import CONTEXT_HEADER, ContextSigner, ServiceTokens

CALLER = "billing"


class Deputy:
    """The service `billing`, which calls `usage` and `app`; and what a thief of its token could send."""

    def __init__(self, clock):
        self.clock = clock
        self.issuer = Issuer()
        self.signer = ContextSigner(CALLER, clock=clock)
        self.state = GivenState([make_tenant(A), make_tenant(B)], self.issuer.jwks)

    def token(self, audience="usage", **claims):
        claims = {"sub": CALLER, "cnf": {"jkt": self.signer.thumbprint}} | claims
        return self.issuer.token(audience=audience, kind="service", scope="service", claims=claims)

    def headers(self, *, token=None, context=None, request_id="req-1", **more):
        headers = {"Authorization": f"Bearer {token or self.token()}", "X-Request-ID": request_id, **more}
        return headers if context is None else headers | {CONTEXT_HEADER: context}

    def context(self, tenant=A, audience="usage", request_id="req-1", **options):
        return self.signer.sign(audience=audience, tenant_id=tenant, request_id=request_id, **options)


@pytest.fixture
def clock():
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def deputy(clock):
    return Deputy(clock)


@pytest.fixture
def callee_of(deputy, clock):
    """A client of the service of this name, in process."""

    def build(service):
        tenancy = Tenancy(service, TenancySettings(issuer=deputy.issuer.issuer), source=deputy.state, clock=clock)
        app = FastAPI()
        tenancy.install(app)

        @app.get("/v1/usage")
        async def usage(tenant: CurrentTenant, principal: CurrentPrincipal) -> dict[str, str | None]:
            return {"tenant": tenant.slug, "caller": principal.subject, "actor": principal.actor}

        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{service}.test")

    return build


@pytest.fixture
async def usage(callee_of):
    async with callee_of("usage") as client:
        yield client


async def test_a_signed_context_names_the_tenant_and_the_person(usage, deputy):
    context = deputy.context(actor="user-1")
    response = await usage.get("/v1/usage", headers=deputy.headers(context=context))
    assert response.json() == {"tenant": "tenant-a", "caller": CALLER, "actor": "user-1"}


@pytest.mark.parametrize(
    ("more", "parameters"), [({"X-Tenant-ID": str(B)}, {}), ({"X-Tenant-ID": "org-b"}, {}), ({}, {"tenant_id": str(B)})]
)
async def test_a_context_of_one_tenant_does_not_ask_for_another(usage, deputy, more, parameters):
    headers = deputy.headers(context=deputy.context(A), **more)
    response = await usage.get("/v1/usage", headers=headers, params=parameters)
    assert (response.status_code, response.json()["type"]) == (403, "tenant-mismatch")


async def test_a_context_and_a_token_are_for_one_callee(callee_of, deputy):
    async with callee_of("app") as app:
        stolen = deputy.headers(context=deputy.context())
        assert (await app.get("/v1/usage", headers=stolen)).status_code == 401
        replayed = deputy.headers(token=deputy.token("app"), context=deputy.context(audience="usage"))
        response = await app.get("/v1/usage", headers=replayed)
        assert (response.status_code, response.json()["type"]) == (401, "invalid-context")
        assert "aud" in response.json()["detail"]


async def test_a_context_lives_for_a_minute(usage, deputy, clock):
    headers = deputy.headers(context=deputy.context())
    assert (await usage.get("/v1/usage", headers=headers)).status_code == 200
    clock.advance(timedelta(seconds=61))
    response = await usage.get("/v1/usage", headers=headers)
    assert (response.status_code, response.json()["type"]) == (401, "invalid-context")


def forged(deputy, *, key=None, header=None, **changes):
    key = key or deputy.signer._key
    now = int(deputy.clock.now().timestamp())
    claims = {"sub": CALLER, "aud": "usage", "iat": now, "exp": now + 60, "tenant_id": str(A)} | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    protected = {"alg": "ES256", "typ": "tenant-context+jwt", "jwk": key.as_dict(private=False), **(header or {})}
    return jws.serialize_compact(protected, json.dumps(claims).encode(), key, algorithms=["ES256"])


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 4_000_000_000},
        {"iat": 1},
        {"sub": "app"},
        {"sub": None},
        {"aud": ["usage", "app"]},
        {"aud": None},
        {"tenant_id": None},
        {"tenant_id": [str(A)]},
        {"tenants": [str(A)]},
        {"act": "user"},
        {"request_id": "another"},
        {"header": {"typ": "JWT"}},
        {"header": {"kid": "x"}},
        {"key": ECKey.generate_key("P-256")},
    ],
)
async def test_a_context_that_is_not_exactly_one_is_refused(usage, deputy, changes):
    response = await usage.get("/v1/usage", headers=deputy.headers(context=forged(deputy, **changes)))
    assert (response.status_code, response.json()["type"]) == (401, "invalid-context")
    good = await usage.get("/v1/usage", headers=deputy.headers(context=forged(deputy)))
    assert good.status_code == 200


async def test_a_context_that_was_changed_on_the_way_is_refused(usage, deputy):
    """Under the header and the signature of a good one."""
    header, _, signature = deputy.context(A).split(".")
    _, claims, _ = deputy.context(B).split(".")
    response = await usage.get("/v1/usage", headers=deputy.headers(context=f"{header}.{claims}.{signature}"))
    assert (response.status_code, response.json()["type"]) == (401, "invalid-context")
    assert "signature" in response.json()["detail"]


@pytest.mark.parametrize("context", ["", "x", "a.b.c", "e30.e30.", "\xe9", "x" * 5000])
async def test_what_is_no_context_is_refused(usage, deputy, context):
    headers = [*deputy.headers().items(), (CONTEXT_HEADER, context.encode("latin-1"))]
    response = await usage.get("/v1/usage", headers=headers)
    assert (response.status_code, response.json()["type"]) == (401, "invalid-context")


async def test_only_a_service_with_a_named_key_sends_a_context(usage, deputy):
    tokens = (
        deputy.token(cnf=None),
        deputy.issuer.token(audience="usage", tenant_id=A),
        deputy.issuer.token(audience="usage", kind="operator", scope="platform", claims={"sub": CALLER}),
        deputy.token(cnf={"jkt": ContextSigner("x").thumbprint}),
        deputy.token(tenant_id=str(B)),
    )
    for token in tokens:
        response = await usage.get("/v1/usage", headers=deputy.headers(token=token, context=deputy.context()))
        assert (response.status_code, response.json()["type"]) == (401, "invalid-context")
    wrong: tuple[Any, ...] = ("x", {"jkt": 1}, {"jwk": {}}, {"jkt": "a", "x5t#S256": "b"})
    for cnf in wrong:
        response = await usage.get("/v1/usage", headers=deputy.headers(token=deputy.token(cnf=cnf)))
        assert (response.status_code, response.json()["type"]) == (401, "unauthenticated")


class Network:
    """Every host there is: records what each was sent, and answers as told."""

    def __init__(self, answers=()):
        self.sent = []
        self.answers = dict(answers)

    async def handle(self, request):
        if request.url.path == "/oauth/token":
            form = parse_qs(request.content.decode())
            self.sent.append(("token", form))
            return httpx.Response(200, json={"access_token": f"for-{form['audience'][0]}", "expires_in": 600})
        self.sent.append((str(request.url), request.headers))
        return self.answers.get(str(request.url), lambda: httpx.Response(200))()

    def headers_of(self, url):
        return next(headers for sent, headers in reversed(self.sent) if sent == url)


OURS = ("authorization", "x-tenant-context", "x-tenant-id", "x-request-id", "traceparent")


@pytest.fixture
def calling(deputy):
    def build(network, **options):
        transport = httpx.MockTransport(network.handle)
        tokens = ServiceTokens(
            "http://tenant.test/oauth/token",
            CALLER,
            "secret",
            client=httpx.AsyncClient(transport=transport),
            confirmation=deputy.signer.thumbprint,
        )
        services = {"usage": "http://usage.test:8002", "app": "https://app.test/base"}
        return httpx.AsyncClient(transport=ServiceTransport(tokens, deputy.signer, services, transport), **options)

    return build


async def test_a_call_carries_token_context_and_request_to_its_callee_and_nothing_to_others(calling, deputy, usage):
    network = Network()
    async with calling(network) as client:
        with tenant_scope(make_tenant(A)):
            for url in ("http://usage.test:8002/v1", "https://app.test/v1", "https://usage.test:8002/v1"):
                await client.get(url, headers={"X-Tenant-ID": str(A), "traceparent": "00-1-1-1"})
        await client.get("http://usage.test:8002/no-tenant")
    named = [form["cnf_jkt"] for kind, form in network.sent if kind == "token"]
    assert named == [[deputy.signer.thumbprint]] * 2
    usage_headers, app_headers = (
        network.headers_of("http://usage.test:8002/v1"),
        network.headers_of("https://app.test/v1"),
    )
    assert (usage_headers["authorization"], app_headers["authorization"]) == ("Bearer for-usage", "Bearer for-app")
    real = {CONTEXT_HEADER: usage_headers[CONTEXT_HEADER], "X-Request-ID": usage_headers["x-request-id"]}
    answer = await usage.get("/v1/usage", headers={"Authorization": f"Bearer {deputy.token()}"} | real)
    assert answer.json()["tenant"] == "tenant-a"
    other_scheme = network.headers_of("https://usage.test:8002/v1")
    assert not [name for name in OURS if name in other_scheme]
    assert CONTEXT_HEADER not in network.headers_of("http://usage.test:8002/no-tenant")


@pytest.mark.parametrize(
    "target", ["https://evil.example.org/", "https://app.test/v1", "http://usage.test:8002/elsewhere"]
)
async def test_a_redirect_is_followed_with_nothing_of_ours(calling, target):
    network = Network({"http://usage.test:8002/v1": lambda: httpx.Response(307, headers={"Location": target})})
    async with calling(network, follow_redirects=True) as client:
        with tenant_scope(make_tenant(A)):
            await client.get("http://usage.test:8002/v1", headers={"X-Tenant-ID": str(A), "Authorization": "mine"})
    assert not [name for name in OURS if name in network.headers_of(target)]


async def test_a_refused_token_is_fetched_anew_once(calling):
    answers = iter([401, 200, 401, 401])
    network = Network({"http://usage.test:8002/v1": lambda: httpx.Response(next(answers))})
    async with calling(network) as client:
        assert (await client.get("http://usage.test:8002/v1")).status_code == 200
        assert (await client.get("http://usage.test:8002/v1")).status_code == 401
    assert [kind for kind, _ in network.sent].count("token") == 3


async def test_the_callers_own_person_and_trace_go_along(calling, deputy, usage):
    """Through a whole service: what comes in for a person goes out for that person."""
    network = Network()
    tenancy = Tenancy("billing", TenancySettings(issuer=deputy.issuer.issuer), source=deputy.state)
    app = FastAPI()
    tenancy.install(app)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with calling(network) as outgoing:

        @app.get("/v1/invoice")
        async def invoice() -> str:
            await outgoing.get("http://usage.test:8002/v1")
            return str(current_tenant().id)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://billing.test") as client:
            token = deputy.issuer.token(audience="billing", tenant_id=A)
            headers = {"Authorization": f"Bearer {token}", "X-Request-ID": "req-9", "traceparent": trace}
            assert (await client.get("/v1/invoice", headers=headers)).json() == str(A)
    sent = network.headers_of("http://usage.test:8002/v1")
    assert (sent["traceparent"], sent["x-request-id"]) == (trace, "req-9")
    context = sent[CONTEXT_HEADER]
    answer = await usage.get("/v1/usage", headers=deputy.headers(context=context, request_id="req-9"))
    assert answer.json()["actor"] == "user-under-test"
    stolen = await usage.get("/v1/usage", headers=deputy.headers(context=context, request_id="another"))
    assert stolen.status_code == 401


def test_a_client_of_an_unknown_service_is_refused_at_once(deputy):
    settings = TenancySettings(issuer="https://tenant.test", services="usage=http://usage.test:8002, app = http://a")
    assert settings.services == {"usage": "http://usage.test:8002", "app": "http://a"}
    with pytest.raises(StartupRefused, match="billing"):
        Tenancy("x", settings, source=deputy.state).client("billing")
