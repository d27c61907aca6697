"""What must not come in: each is refused with its own problem, and nothing is half done."""

import json
from typing import Any
from uuid import UUID

import pytest
from issuer import Issuer

from tenantry import Isolation, Operation, TenantStatus

# One pattern is enough: what is refused here is refused before any row is looked for.
pytestmark = pytest.mark.parametrize("world", [Isolation.POOL], ids=str, indirect=True, scope="module")

UNKNOWN = UUID("01a1fed6-d4ba-73ac-8263-689d0b1c5bf0")
JSON = {"Content-Type": "application/json"}


async def refused(product, response, status, kind):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["type"], problem["status"]) == (kind, status), problem
    assert problem["title"]
    assert problem["instance"].startswith("/")
    for inner in ("Traceback", "sqlalchemy", "asyncpg", "SELECT", "INSERT", "document_pkey"):
        assert inner not in response.text
    return problem


BODIES = {
    "no body": (b"", 422, "invalid-request"),
    "not JSON": (b"{", 400, "malformed-json"),
    "two documents": (b"{}{}", 400, "malformed-json"),
    "trailing comma": (b'{"title": "t",}', 400, "malformed-json"),
    "not UTF-8": (b'{"title": "\xff\xfe"}', 400, "malformed-json"),
    "array": (b"[]", 422, "invalid-request"),
    "text": (b'"t"', 422, "invalid-request"),
    "null": (b"null", 422, "invalid-request"),
    "nothing in it": (b"{}", 422, "invalid-request"),
    "number as title": (b'{"title": 5}', 422, "invalid-request"),
    "null as title": (b'{"title": null}', 422, "invalid-request"),
    "empty title": (b'{"title": ""}', 422, "invalid-request"),
    "object as tag": (b'{"title": "t", "tags": [{}]}', 422, "invalid-request"),
    "text as tags": (b'{"title": "t", "tags": "x"}', 422, "invalid-request"),
    "NUL": (b'{"title": "a\\u0000b"}', 422, "invalid-request"),
    "NUL in a tag": (b'{"title": "t", "tags": ["a\\u0000b"]}', 422, "invalid-request"),
    "lone surrogate": (b'{"title": "\\ud800"}', 422, "invalid-request"),
    "unknown field": (b'{"title": "t", "colour": "red"}', 422, "invalid-request"),
    "tenant of another": (b'{"title": "t", "tenant_id": "%s"}' % str(UNKNOWN).encode(), 422, "invalid-request"),
    "own version": (b'{"title": "t", "version": 7}', 422, "invalid-request"),
    "own id": (b'{"title": "t", "id": "%s"}' % str(UNKNOWN).encode(), 422, "invalid-request"),
    "long title": (json.dumps({"title": "t" * 301}).encode(), 422, "invalid-request"),
    "long body": (json.dumps({"title": "t", "body": "b" * 100_001}).encode(), 422, "invalid-request"),
    "deep nesting": (b"[" * 100_000 + b"]" * 100_000, 400, "malformed-json"),
    "huge number": (b'{"title": ' + b"9" * 10_000 + b"}", 400, "malformed-json"),
    "huge": (b'{"title": "' + b"x" * (2 * 1024 * 1024) + b'"}', 413, "payload-too-large"),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_bad_bodies(product, world, name, method):
    content, status, kind = BODIES[name]
    before = await world.fingerprint(world.a)
    path = "/v1/documents" if method == "POST" else f"/v1/documents/{world.ids(world.a)['document_id']}"
    response = await product.client.request(method, path, content=content, headers={**product.headers(world.a), **JSON})
    await refused(product, response, status, kind)
    assert await world.fingerprint(world.a) == before


async def test_a_body_without_a_length_is_bounded_too(product, world):
    async def endless():
        for _ in range(64):
            yield b'"' + b"x" * 65_536

    response = await product.client.post(
        "/v1/documents", content=endless(), headers={**product.headers(world.a), **JSON}
    )
    await refused(product, response, 413, "payload-too-large")


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/v1/documents/not-an-id", 422, "invalid-request"),
        (f"/v1/documents/{UNKNOWN}", 404, "not-found"),
        (f"/v1/documents/{UNKNOWN}%00", 422, "invalid-request"),
        (f"/v1/documents/{UNKNOWN}/files/n%00l", 422, "invalid-request"),
        (f"/v1/documents/{UNKNOWN}/files/%2e%2e", 422, "invalid-request"),
        (f"/v1/documents/{UNKNOWN}/files/" + "x" * 201, 422, "invalid-request"),
        ("/v1/documents?limit=0", 422, "invalid-request"),
        ("/v1/documents?limit=201", 422, "invalid-request"),
        ("/v1/documents?limit=many", 422, "invalid-request"),
        ("/v1/documents?tag=", 422, "invalid-request"),
        ("/v1/documents?tag=%00", 422, "invalid-request"),
        ("/v1/search", 422, "invalid-request"),
        ("/v1/search?q=", 422, "invalid-request"),
        ("/v1/search?q=%00", 422, "invalid-request"),
        ("/v1/search?q=" + "x" * 201, 422, "invalid-request"),
        ("/v1/nothing", 404, "not-found"),
        ("/v1/documents/", 404, "not-found"),
    ],
)
async def test_bad_paths_and_queries(product, world, path, status, kind):
    await refused(product, await product.client.get(path, headers=product.headers(world.a)), status, kind)


@pytest.mark.parametrize(
    "query", ["'", '"', "a & | !", "(", "-", "or or", "\\", "%", "it's \"un closed", "<->", "日本"]
)
async def test_no_search_text_is_an_error_of_ours(product, world, query):
    response = await product.client.get("/v1/search", params={"q": query}, headers=product.headers(world.a))
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("header", ["1", "x", '"x"', 'W/"1"', '"1", "2"', '"' + "9" * 40 + '"', ""])
async def test_a_bad_if_match(product, world, header):
    path = f"/v1/documents/{world.ids(world.a)['document_id']}"
    response = await product.client.patch(
        path, json={"title": "t"}, headers={**product.headers(world.a), "If-Match": header}
    )
    await refused(product, response, 400, "malformed-request")


def tokens(product, world):
    issuer, tenant = product.issuer, world.a.id
    good = issuer.token(tenant_id=tenant)
    head, payload, signature = good.split(".")
    other_payload = issuer.token(tenant_id=world.b.id).split(".")[1]
    flipped = ("A" if signature[10] != "A" else "B").join((signature[:10], signature[11:]))
    stranger = Issuer(kid=issuer.kid)
    return {
        "wrong audience": issuer.token(tenant_id=tenant, audience="billing"),
        "no audience": issuer.token(tenant_id=tenant, claims={"aud": None}),
        "wrong issuer": issuer.token(tenant_id=tenant, claims={"iss": "https://elsewhere.test"}),
        "expired": issuer.token(tenant_id=tenant, lifetime=-120),
        "not yet valid": issuer.token(tenant_id=tenant, claims={"nbf": 2**33}),
        "issued in the future": issuer.token(tenant_id=tenant, claims={"iat": 2**33, "exp": 2**33 + 60}),
        "valid for an hour": issuer.token(tenant_id=tenant, lifetime=3600),
        "no expiry": issuer.token(tenant_id=tenant, claims={"exp": None}),
        "payload of B": f"{head}.{other_payload}.{signature}",
        "signature changed": f"{head}.{payload}.{flipped}",
        "signature cut off": f"{head}.{payload}.",
        "another key of the same name": stranger.token(tenant_id=tenant),
        "unknown key": Issuer(kid="unknown").token(tenant_id=tenant),
        "key id that is a path": issuer.token(tenant_id=tenant, header={"kid": "../../etc/passwd"}),
        "two tenants": issuer.token(claims={"tenant_id": [str(tenant), str(world.b.id)]}),
        "list of one tenant": issuer.token(claims={"tenant_id": [str(tenant)]}),
        "tenant that is no id": issuer.token(claims={"tenant_id": "' OR 1=1 --"}),
        "not a token": "x" * 40,
        "three dots": "...",
        "API key nobody has": "tk_" + "A" * 43,
        "session as bearer": "ts_" + "A" * 43,
    }


TOKEN_NAMES = [
    "wrong audience", "no audience", "wrong issuer", "expired", "not yet valid", "issued in the future",
    "valid for an hour", "no expiry", "payload of B", "signature changed", "signature cut off",
    "another key of the same name", "unknown key", "key id that is a path", "two tenants", "list of one tenant",
    "tenant that is no id", "not a token", "three dots", "API key nobody has", "session as bearer",
]  # fmt: skip


@pytest.mark.parametrize("name", TOKEN_NAMES)
async def test_bad_tokens(product, world, name):
    before = await world.fingerprint(world.a)
    headers = {"Authorization": f"Bearer {tokens(product, world)[name]}"}
    for method, path in (("GET", "/v1/documents"), ("POST", "/v1/documents")):
        response = await product.client.request(method, path, json={"title": "t"}, headers=headers)
        await refused(product, response, 401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")
    assert await world.fingerprint(world.a) == before


async def test_every_bad_token_is_tried(product, world):
    assert set(tokens(product, world)) == set(TOKEN_NAMES)


async def test_a_token_of_an_unknown_tenant_learns_nothing(product, world):
    headers = {"Authorization": f"Bearer {product.issuer.token(tenant_id=UNKNOWN)}"}
    await refused(product, await product.client.get("/v1/documents", headers=headers), 404, "not-found")


STATES: dict[str, tuple[dict[str, Any], int, str]] = {
    "suspended": ({"status": TenantStatus.SUSPENDED, "suspension_reasons": ("abuse",)}, 403, "tenant-suspended"),
    "read-only": ({"read_only": True}, 409, "tenant-read-only"),
    "moving": ({"moving": True}, 503, "tenant-moving"),
    "provisioning": ({"status": TenantStatus.PROVISIONING}, 403, "tenant-not-active"),
    "offboarding": ({"status": TenantStatus.OFFBOARDING}, 403, "tenant-not-active"),
    "purging": ({"status": TenantStatus.PURGING}, 404, "not-found"),
}


@pytest.mark.parametrize("name", STATES)
async def test_tenants_that_may_not_write(product, world, name):
    changes, status, kind = STATES[name]
    before = await world.fingerprint(world.a)
    with product.changed(world.a, **changes):
        response = await product.client.post("/v1/documents", json={"title": "t"}, headers=product.headers(world.a))
        await refused(product, response, status, kind)
    assert await world.fingerprint(world.a) == before


async def test_a_suspension_for_debts_leaves_reading(product, world):
    blocked = (Operation.WRITE, Operation.JOBS, Operation.INGEST)
    debts = {"status": TenantStatus.SUSPENDED, "suspension_reasons": ("billing",), "blocked": blocked}
    with product.changed(world.a, **debts):
        response = await product.client.get("/v1/documents", headers=product.headers(world.a))
        assert response.status_code == 200
        response = await product.client.post("/v1/documents", json={"title": "t"}, headers=product.headers(world.a))
        await refused(product, response, 403, "tenant-suspended")
