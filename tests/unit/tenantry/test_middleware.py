"""What the middleware lets through, what it refuses and how, and what it leaves bound."""

import asyncio
import json
from typing import Annotated
from unittest.mock import AsyncMock
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, FastAPI
from prometheus_client import REGISTRY
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from tenantry import (
    CurrentTenant,
    LocalDirectory,
    NoTenant,
    Operation,
    Tenant,
    TenantStatus,
    current_request_id,
    current_tenant,
    current_tenant_or_none,
)
from tenantry.http import CurrentPrincipal, TenancyMiddleware, require_scope, service_app
from tenantry.identity import Credential, Identifier, Scope, new_api_key, secret_hash

B = "0198a000-0000-7000-8000-00000000000b"


def problem_of(response):
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == response.status_code
    assert document["instance"] == response.request.url.path
    return document["type"]


async def test_a_route_sees_the_caller_and_the_tenant(client, issuer, a):
    response = await client.get("/v1/things/7", headers=issuer.bearer())
    assert response.status_code == 200
    assert response.json() == {"thing": "7", "tenant": str(a.id), "subject": "user-1"}


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({}, 401, "unauthenticated"),
        ({"Authorization": "Bearer x.y.z"}, 401, "unauthenticated"),
        ({"X-Tenant-ID": B}, 403, "tenant-mismatch"),
        ({"X-Tenant-ID": ""}, 400, "malformed-request"),
    ],
)
async def test_refusals_are_problems(client, issuer, headers, status, kind):
    authentication = {} if status == 401 else issuer.bearer()
    response = await client.get("/v1/things/7", headers=authentication | headers)
    assert response.status_code == status
    assert problem_of(response) == kind
    assert ("www-authenticate" in response.headers) == (status == 401)


async def test_an_operator_without_a_tenant_reaches_the_route_which_misses_it(client, issuer):
    response = await client.get("/v1/things/7", headers=issuer.operator())
    assert (response.status_code, problem_of(response)) == (400, "tenant-missing")


async def test_nobody_is_served_before_the_directory_has_caught_up(directory, client, issuer):
    directory.ready = False
    response = await client.get("/v1/things/7", headers=issuer.bearer())
    assert (response.status_code, problem_of(response)) == (503, "unavailable")
    assert response.headers["retry-after"] == "1"
    for path in ("/healthz", "/metrics", "/openapi.json"):
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/healthz/", "/healthz/x", "/HEALTHZ", "//healthz", "/docs/x", "/v1", "/"])
async def test_what_is_not_exactly_public_needs_a_credential(client, path):
    assert (await client.get(path)).status_code == 401


STATES = [
    ({"status": TenantStatus.ACTIVE}, 200, 200, None),
    ({"status": TenantStatus.SUSPENDED, "suspension_reasons": ("abuse",)}, 403, 403, "tenant-suspended"),
    (
        {
            "status": TenantStatus.SUSPENDED,
            "suspension_reasons": ("billing",),
            "blocked": (Operation.INGEST, Operation.JOBS, Operation.WRITE),
        },
        200,
        403,
        "tenant-suspended",
    ),
    ({"read_only": True}, 200, 409, "tenant-read-only"),
    ({"moving": True}, 503, 503, "tenant-moving"),
    ({"status": TenantStatus.REQUESTED}, 403, 403, "tenant-not-active"),
    ({"status": TenantStatus.PROVISIONING}, 403, 403, "tenant-not-active"),
    ({"status": TenantStatus.PROVISIONING_FAILED}, 403, 403, "tenant-not-active"),
    ({"status": TenantStatus.CANCELLED}, 403, 403, "tenant-not-active"),
    ({"status": TenantStatus.OFFBOARDING}, 403, 403, "tenant-not-active"),
    ({"status": TenantStatus.PURGING}, 404, 404, "not-found"),
    ({"status": TenantStatus.PURGED}, 404, 404, "not-found"),
]


@pytest.mark.parametrize(("state", "read", "write", "kind"), STATES)
async def test_the_tenants_state_decides_for_the_same_cached_token(
    client, issuer, suspend, a, state, read, write, kind
):
    headers = issuer.bearer()
    assert (await client.get("/v1/things/7", headers=headers)).status_code == 200
    suspend(a, **state)
    for method, expected in (("GET", read), ("POST", write)):
        response = await client.request(method, "/v1/things/7", headers=headers)
        assert response.status_code == expected
        if expected != 200:
            assert problem_of(response) == kind
        if expected == 503:
            assert int(response.headers["retry-after"]) > 0


async def test_a_suspension_names_its_reasons_and_ends(client, issuer, suspend, a):
    suspend(a, status=TenantStatus.SUSPENDED, suspension_reasons=("abuse", "legal"), blocked=tuple(Operation))
    response = await client.get("/v1/things/7", headers=issuer.bearer())
    assert response.json()["detail"] == "The tenant is suspended: abuse, legal."
    suspend(a, status=TenantStatus.ACTIVE, suspension_reasons=(), blocked=())
    assert (await client.get("/v1/things/7", headers=issuer.bearer())).status_code == 200


async def test_a_tombstone_is_404_for_the_tenants_own_token(client, issuer, directory, a):
    headers = issuer.bearer()
    assert (await client.get("/v1/things/7", headers=headers)).status_code == 200
    directory.remove(a.id)
    response = await client.get("/v1/things/7", headers=headers)
    assert (response.status_code, problem_of(response)) == (404, "not-found")


async def test_a_revoked_key_and_a_withdrawn_signing_key_are_refused_at_once(client, issuer, credentials, a):
    secret = new_api_key()
    credential = Credential(id="1", kind="api_key", hash=secret_hash(secret), tenant_id=a.id, subject="machine")
    credentials.upsert(credential)
    key, token = {"Authorization": f"Bearer {secret}"}, issuer.bearer()
    assert [(await client.get("/v1/things/7", headers=h)).status_code for h in (key, token)] == [200, 200]
    credentials.remove("1")
    issuer.keys.replace({"keys": []})
    assert [(await client.get("/v1/things/7", headers=h)).status_code for h in (key, token)] == [401, 401]


async def test_an_operator_is_stopped_by_a_suspension_except_where_tenants_are_administered(
    make_app, client_of, issuer, suspend, a
):
    suspend(a)
    headers = issuer.operator() | {"X-Tenant-ID": str(a.id)}
    for administrative, expected in ((False, 403), (True, 200)):
        async with client_of(make_app(administrative=administrative)) as client:
            assert (await client.get("/v1/things/7", headers=headers)).status_code == expected
            assert (await client.get("/v1/things/7", headers=issuer.bearer())).status_code == 403


async def test_routes_may_be_other_operations(make_app, client_of, issuer, suspend, a):
    app = make_app(
        operations={
            "POST /v1/things/{thing}": Operation.INGEST,
            "GET /v1/things/portal": Operation.PORTAL,
            "/v1/things/open": None,
        }
    )
    suspend(a, status=TenantStatus.SUSPENDED, suspension_reasons=("x",), blocked=(Operation.INGEST, Operation.READ))
    service = issuer.operator("service") | {"X-Tenant-ID": str(a.id)}
    async with client_of(app) as client:

        async def status(method, thing, headers):
            return (await client.request(method, f"/v1/things/{thing}", headers=headers)).status_code

        assert await status("POST", "1", issuer.bearer()) == 403
        assert await status("POST", "1", service) == 200  # SERVICE_INGEST is another operation
        assert await status("GET", "1", issuer.bearer()) == 403
        assert await status("GET", "portal", issuer.bearer()) == 200
        assert await status("GET", "open", issuer.bearer()) == 200
        assert await status("POST", "open", issuer.bearer()) == 200


async def test_public_routes_need_no_credential_and_have_no_tenant(make_app, client_of, issuer):
    app = make_app(public=["POST /oauth/token", "/assets/*"])

    @app.post("/oauth/token")
    async def token() -> dict[str, bool]:
        return {"bound": current_tenant_or_none() is not None}

    @app.get("/assets/{name}")
    async def asset(principal: CurrentPrincipal) -> None: ...

    async with client_of(app) as client:
        assert (await client.post("/oauth/token", headers=issuer.bearer())).json() == {"bound": False}
        assert (await client.get("/oauth/token")).status_code == 401
        assert problem_of(await client.get("/assets/logo.svg", headers=issuer.bearer())) == "unauthenticated"


async def test_scopes_are_checked_and_implied(make_app, client_of, issuer):
    app = make_app()
    for path, needed in (("read", Scope.TENANT_READ), ("write", Scope.TENANT_WRITE), ("admin", Scope.TENANT_ADMIN)):
        app.get(f"/{path}", dependencies=[Depends(require_scope(needed, Scope.PLATFORM))])(lambda: None)
    allowed = {
        "tenant:read": [200, 403, 403],
        "tenant:write": [200, 200, 403],
        "tenant:admin": [200, 200, 200],
        "platform": [200, 200, 200],
        "": [403, 403, 403],
        "tenant:Admin tenant tenant:": [403, 403, 403],
    }
    async with client_of(app) as client:
        for scope, expected in allowed.items():
            headers = issuer.bearer(scope=scope or "nothing")
            found = [(await client.get(path, headers=headers)).status_code for path in ("/read", "/write", "/admin")]
            assert found == expected, scope


async def test_the_tenant_is_bound_for_the_whole_request_and_gone_after_it(make_app, client_of, issuer, a, b):
    app = make_app()
    seen = []

    async def plain(tenant: CurrentTenant):
        yield current_tenant()
        seen.append(current_tenant().id)

    @app.get("/bound")
    async def bound(first: Annotated[Tenant, Depends(plain)]) -> str:
        await asyncio.sleep(0)
        return str(first.id)

    @app.get("/in-thread")
    def in_thread() -> str:
        return str(current_tenant().id)

    async with client_of(app) as client:
        answers = await asyncio.gather(
            *(
                client.get(path, headers=issuer.bearer(tenant_id=str(tenant.id)))
                for tenant in (a, b) * 20
                for path in ("/bound", "/in-thread")
            )
        )
    assert [UUID(answer.json()) for answer in answers] == [t.id for t in (a, b) * 20 for _ in range(2)]
    assert seen.count(a.id) == seen.count(b.id) == 20
    assert current_tenant_or_none() is None
    with pytest.raises(NoTenant):
        current_tenant()


async def test_an_error_of_the_application_is_a_bare_500_and_leaves_nothing_bound(make_app, client_of, issuer):
    app = make_app()

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the password is 12345")

    async with client_of(app) as client:
        response = await client.get("/broken", headers=issuer.bearer())
    assert (response.status_code, problem_of(response)) == (500, "internal-error")
    assert "12345" not in response.text
    assert current_tenant_or_none() is None
    assert current_request_id() is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [("req-1", True), ("a" * 128, True), ("a" * 129, False), ("", False), ("a b", False), ("é", False), ('"x"', False)],
)
async def test_a_request_id_is_kept_where_it_is_harmless(make_app, client_of, issuer, given, kept):
    app = make_app(public=["/id"])

    @app.get("/id")
    async def get_id() -> str | None:
        return current_request_id()

    async with client_of(app) as client:
        response = await client.get("/id", headers={"X-Request-ID": given.encode()})
        assert response.json() == response.headers["x-request-id"]
        assert (response.json() == given) is kept
        assert (await client.get("/id")).json() != (await client.get("/id")).json()
        assert "x-request-id" in (await client.get("/v1/things/1")).headers


def samples(service):
    return {
        tuple(sample.labels[name] for name in ("route", "method", "status")): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "http_requests_total" and sample.labels["service"] == service
    }


async def test_requests_are_counted_by_template_and_no_label_is_the_callers_choice(
    client_of, directory, verifier, issuer, credentials
):
    app = service_app(title="Counted", service="counted")
    router = APIRouter(prefix="/v1")
    router.get("/things/{thing}")(lambda thing: thing)
    app.include_router(router, prefix="/api")
    sub = FastAPI()
    sub.get("/inner/{x}")(lambda x: x)
    app.mount("/sub", sub)
    identifier = Identifier(directory=directory, tokens=verifier, credentials=credentials)
    app.add_middleware(TenancyMiddleware, service="counted", directory=directory, identifier=identifier)
    async with client_of(app) as client:
        for path in ("/api/v1/things/1", "/api/v1/things/2", "/sub/inner/3", "/nowhere/4", "/healthz"):
            await client.get(path, headers=issuer.bearer())
        for method in ("BREW", "X" * 50):
            await client.request(method, "/healthz")
        await client.get("/api/v1/things/1")
    assert samples("counted") == {
        ("/api/v1/things/{thing}", "GET", "200"): 2,
        ("/sub/inner/{x}", "GET", "200"): 1,
        ("none", "GET", "404"): 1,
        ("none", "GET", "401"): 1,
        ("/healthz", "GET", "200"): 1,
        ("/healthz", "other", "405"): 2,
    }


async def test_lifespans_and_other_scopes_pass_untouched(directory, identifier):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    middleware = TenancyMiddleware(app, service="x", directory=directory, identifier=identifier)
    await middleware({"type": "lifespan"}, AsyncMock(), AsyncMock())
    assert seen == ["lifespan"]


async def connect(app, headers=()):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {"type": "websocket", "path": "/live", "raw_path": b"/live", "query_string": b"", "headers": raw}
    await app(scope | {"root_path": "", "scheme": "ws", "subprotocols": [], "client": ("c", 1)}, receive, send)
    return sent


async def test_websockets_are_identified_and_end_with_the_right_to_them(make_app, issuer, suspend, a):
    app = make_app(recheck_seconds=0.0)

    @app.websocket("/live")
    async def live(socket: WebSocket):
        await socket.accept()
        await socket.send_text(str(current_tenant().id))
        suspend(a)
        await socket.send_text("never")

    assert await connect(app) == [{"type": "websocket.close", "code": 1008, "reason": "unauthenticated"}]
    accepted, first, closed = await connect(app, issuer.bearer().items())
    assert (accepted["type"], first["text"]) == ("websocket.accept", str(a.id))
    assert closed == {"type": "websocket.close", "code": 1008, "reason": "tenant-suspended"}
    assert (await connect(app, issuer.bearer().items()))[0]["reason"] == "tenant-suspended"


async def test_a_problem_is_sent_even_where_the_application_is_not_fastapi(
    directory, identifier, issuer, client_of, suspend, a
):
    middleware = TenancyMiddleware(PlainTextResponse("ok"), service="x", directory=directory, identifier=identifier)
    async with client_of(middleware) as client:
        assert (await client.get("/", headers=issuer.bearer())).text == "ok"
        suspend(a)
        response = await client.get("/", headers=issuer.bearer())
    assert json.loads(response.content)["type"] == "tenant-suspended"


def test_an_empty_directory_is_not_ready():
    assert not LocalDirectory().ready


@pytest.mark.parametrize("address", ["/v1/things/a%00b", "/v1/things/7?q=%00"])
async def test_an_address_with_nul_is_refused_before_the_route(client, issuer, address):
    response = await client.get(address, headers=issuer.bearer())
    assert response.status_code == 422
    assert response.json()["type"] == "invalid-request"
