"""Tokens, API keys, signing keys and sessions over HTTP."""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tenant_service.identity.clients import BootstrapError
from tenant_service.identity.secrets import MasterKeyError
from tenantry import ManualClock
from tenantry.identity import SESSION_COOKIE, ContextSigner
from tenantry.testing import eventually


def problem(answer, status, kind):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["type"] == kind


async def claims(api, token):
    keys = KeySet.import_key_set((await api.http.get("/.well-known/jwks.json")).json())
    return jwt.decode(token, keys, ["ES256"])


async def test_a_token_has_exactly_the_agreed_claims(api):
    token = await claims(api, await api.token("app", audience="usage"))
    assert token.header.keys() == {"alg", "kid", "typ"}
    assert token.claims.keys() == {"iss", "aud", "sub", "iat", "exp", "jti", "scope", "kind"}
    assert token.claims["exp"] - token.claims["iat"] == 600
    assert (token.claims["aud"], token.claims["sub"], token.claims["scope"], token.claims["kind"]) == (
        "usage",
        "app",
        "service",
        "service",
    )


async def test_the_published_keys_hold_nothing_private(api):
    for key in (await api.http.get("/.well-known/jwks.json")).json()["keys"]:
        assert key.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    ("change", "status", "kind"),
    [
        ({"client_secret": "wrong"}, 401, "invalid-client"),
        ({"client_id": "nobody"}, 401, "invalid-client"),
        ({"client_secret": ""}, 422, "invalid-request"),
        ({"audience": "app"}, 400, "invalid-target"),
        ({"audience": None}, 400, "invalid-target"),
        ({"scope": "platform"}, 400, "invalid-scope"),
        ({"scope": "service platform"}, 400, "invalid-scope"),
        ({"scope": ""}, 400, "invalid-scope"),
        ({"grant_type": "password"}, 400, "unsupported-grant-type"),
        ({"grant_type": None}, 422, "invalid-request"),
        ({"tenant_id": str(uuid4())}, 422, "invalid-request"),
    ],
)
async def test_tokens_that_are_not_issued(api, as_json, change, status, kind):
    wanted = {
        "grant_type": "client_credentials",
        "client_id": "app",
        "client_secret": "app-secret",
        "audience": "usage",
    } | change
    body = {name: value for name, value in wanted.items() if value is not None}
    answer = await api.http.post("/oauth/token", **({"json": body} if as_json else {"data": body}))
    problem(answer, status, kind)
    assert "app-secret" not in answer.text


async def test_the_client_may_authenticate_in_the_header(api):
    header = "Basic " + base64.b64encode(b"app:app-secret").decode()
    body = {"grant_type": "client_credentials", "audience": "usage"}
    answer = await api.http.post("/oauth/token", data=body, headers={"Authorization": header})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    twice = await api.http.post(
        "/oauth/token", data={**body, "client_secret": "app-secret"}, headers={"Authorization": header}
    )
    problem(twice, 400, "malformed-request")
    other = await api.http.post("/oauth/token", content=b"x", headers={"Content-Type": "text/plain"})
    problem(other, 415, "unsupported-media-type")


async def test_a_services_token_names_the_key_that_it_signs_contexts_with(api):
    body = {"grant_type": "client_credentials", "client_id": "app", "client_secret": "app-secret", "audience": "usage"}
    thumbprint = ContextSigner("app").thumbprint
    for given, cnf in ((thumbprint, {"jkt": thumbprint}), (None, None)):
        answer = await api.http.post("/oauth/token", data=body | ({} if given is None else {"cnf_jkt": given}))
        assert (await claims(api, answer.json()["access_token"])).claims.get("cnf") == cnf
    for wrong in ("", "x" * 42, "x" * 44, "+" * 43):
        problem(await api.http.post("/oauth/token", data=body | {"cnf_jkt": wrong}), 422, "invalid-request")


async def test_only_operators_use_the_platform_routes(api):
    tenant = await api.create()
    await api.activate(tenant["id"])
    key = (
        await api.http.post(f"/v1/tenants/{tenant['id']}/api-keys", json={"name": "k", "scopes": ["tenant:admin"]})
    ).json()
    routes = [
        ("POST", "/v1/tenants"),
        ("GET", "/v1/tenants"),
        ("PATCH", f"/v1/tenants/{tenant['id']}"),
        ("POST", f"/v1/tenants/{tenant['id']}/suspend"),
        ("GET", f"/v1/tenants/{tenant['id']}/runs"),
        ("PUT", "/v1/tiers/standard"),
        ("GET", "/v1/tiers"),
        ("POST", "/v1/test-clocks"),
        ("POST", "/v1/sign-in-codes"),
        ("POST", "/v1/signing-keys/rotate"),
    ]
    for credential in (await api.token("app"), key["key"]):
        for method, path in routes:
            answer = await api.http.request(
                method, path, json={} if method != "GET" else None, headers={"Authorization": f"Bearer {credential}"}
            )
            problem(answer, 403, "forbidden")
    for method, path in routes:
        answer = await api.http.request(method, path, headers={"Authorization": ""})
        assert answer.status_code == 401


async def test_a_tenant_reads_itself_and_learns_of_no_other(api):
    mine, other = await api.create(external_id="org-mine"), await api.create(external_id="org-other")
    await api.activate(mine["id"])
    body = {"name": "k", "scopes": ["tenant:read"]}
    key = (await api.http.post(f"/v1/tenants/{mine['id']}/api-keys", json=body)).json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    for reference in (mine["id"], "org-mine"):
        assert (await api.http.get(f"/v1/tenants/{reference}", headers=headers)).json()["id"] == mine["id"]
    answers = [
        (await api.http.get(f"/v1/tenants/{reference}", headers=headers))
        for reference in (other["id"], "org-other", str(uuid4()), "org-none")
    ]
    assert {answer.status_code for answer in answers} == {404}
    bodies = [{name: value for name, value in answer.json().items() if name != "instance"} for answer in answers]
    assert all(body == bodies[0] for body in bodies)


async def test_an_api_key_is_shown_once_and_stored_as_a_hash(api, platform):
    tenant = await api.create()
    path = f"/v1/tenants/{tenant['id']}/api-keys"
    body = {"name": "ci", "scopes": ["tenant:write", "tenant:read"]}
    made = await api.http.post(path, json=body, headers={"Idempotency-Key": "key-1"})
    assert made.status_code == 201
    key = made.json()["key"]
    assert key.startswith(made.json()["prefix"])
    assert len(key) == 46
    again = await api.http.post(path, json=body, headers={"Idempotency-Key": "key-1"})
    problem(again, 409, "secret-already-shown")
    (listed,) = (await api.http.get(path)).json()["items"]
    assert "key" not in listed
    (document,) = await platform.outbox("tenant.credentials.v1", made.json()["id"])
    assert document["payload"]["hash"] == hashlib.sha256(key.encode()).hexdigest()
    async with platform.database.connect() as connection:
        for table in ("api_key", "outbox", "audit_entry", "idempotency_key"):
            rows = await connection.fetch(f"SELECT row_to_json(t)::text AS row FROM system.{table} t")
            assert not any(key in row["row"] for row in rows)
            assert not any(key.encode().hex() in row["row"] for row in rows)


@pytest.mark.parametrize(
    "change",
    [
        {"scopes": []},
        {"scopes": ["platform"]},
        {"scopes": ["service"]},
        {"name": ""},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2020-01-01T00:00:00"},
        {"secret": "mine"},
    ],
)
async def test_keys_that_are_not_made(api, change):
    tenant = await api.create()
    body = {"name": "k", "scopes": ["tenant:read"]} | change
    problem(await api.http.post(f"/v1/tenants/{tenant['id']}/api-keys", json=body), 422, "invalid-request")


async def test_a_revoked_key_is_refused_at_once_and_everywhere(api, start_api, platform):
    tenant = await api.create()
    await api.activate(tenant["id"])
    path = f"/v1/tenants/{tenant['id']}/api-keys"
    made = (await api.http.post(path, json={"name": "k", "scopes": ["tenant:read"]})).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    replica = await start_api()
    for each in (api, replica):
        assert (await each.http.get(f"/v1/tenants/{tenant['id']}", headers=headers)).status_code == 200
    for _ in range(2):
        assert (await api.http.delete(f"{path}/{made['id']}")).status_code == 204
    assert (await api.http.get(f"/v1/tenants/{tenant['id']}", headers=headers)).status_code == 401

    async def refused():
        return (await replica.http.get(f"/v1/tenants/{tenant['id']}", headers=headers)).status_code == 401

    await eventually(refused)
    grant = {"grant_type": "urn:tenantry:api-key", "api_key": made["key"], "audience": "app"}
    problem(await api.http.post("/oauth/token", data=grant), 401, "invalid-api-key")
    published = await platform.outbox("tenant.credentials.v1", made["id"])
    assert [(row["version"], row["payload"] is None) for row in published] == [(1, False), (2, True)]


async def test_a_key_is_exchanged_for_a_token_of_its_tenant(api):
    tenant = await api.create()
    await api.activate(tenant["id"])
    path = f"/v1/tenants/{tenant['id']}"
    expiry = (datetime.now(UTC) + timedelta(minutes=2)).isoformat()
    body = {"name": "k", "scopes": ["tenant:write"], "expires_at": expiry}
    key = (await api.http.post(f"{path}/api-keys", json=body)).json()["key"]
    grant = {"grant_type": "urn:tenantry:api-key", "api_key": key, "audience": "tenant", "scope": "tenant:read"}
    answer = (await api.http.post("/oauth/token", json=grant)).json()
    token = await claims(api, answer["access_token"])
    assert (token.claims["tenant_id"], token.claims["scope"]) == (tenant["id"], "tenant:read")
    assert answer["expires_in"] <= 120
    headers = {"Authorization": f"Bearer {answer['access_token']}"}
    assert (await api.http.get(path, headers=headers)).status_code == 200
    problem(await api.http.post("/oauth/token", json=grant | {"scope": "platform"}), 400, "invalid-scope")
    await api.http.post(f"{path}/suspend", json={"reason": "abuse"})
    problem(await api.http.post("/oauth/token", json=grant), 403, "tenant-suspended")
    problem(await api.http.get(path, headers=headers), 403, "tenant-suspended")


async def test_the_private_key_is_not_readable_in_the_database(api, platform):
    async with platform.database.connect() as connection:
        rows = await connection.fetch("SELECT private_key FROM system.signing_key")
        published = await connection.fetch("SELECT payload FROM system.outbox WHERE topic = 'platform.state.v1'")
    assert all(b'"d"' not in row["private_key"] for row in rows)
    for row in published:
        assert all("d" not in key for key in json.loads(row["payload"]).get("keys", []))


async def test_no_start_without_the_right_master_key(api, start_api):
    for wrong in ("", "short", base64.b64encode(bytes(32)).decode()):
        with pytest.raises(MasterKeyError):
            await start_api(master_key=wrong)


async def test_no_start_with_a_bad_bootstrap_file(start_api, tmp_path):
    for content in ("", "{}", '[{"client_id": "x"}]', '[{"client_id":"x","secret":"s","scopes":[],"audiences":[]}]'):
        path = tmp_path / "bad.json"
        path.write_text(content)
        with pytest.raises(BootstrapError):
            await start_api(bootstrap_file=path)
    with pytest.raises(BootstrapError):
        await start_api(bootstrap_file=tmp_path / "none.json")


async def test_a_client_that_left_the_bootstrap_file_cannot_sign_in(start_api, tmp_path, bootstrap_file):
    clients = [client for client in json.loads(bootstrap_file.read_text()) if client["client_id"] != "app"]
    path = tmp_path / "fewer.json"
    path.write_text(json.dumps(clients))
    api = await start_api(bootstrap_file=path)
    body = {"grant_type": "client_credentials", "client_id": "app", "client_secret": "app-secret"}
    problem(await api.http.post("/oauth/token", data=body), 401, "invalid-client")


async def new_code(api, **body):
    answer = await api.http.post("/v1/sign-in-codes", json=body)
    assert answer.status_code == 201
    return answer.json()


async def test_a_code_signs_in_once(api, platform):
    made = await new_code(api)
    assert parse_qs(urlsplit(made["url"]).query)["code"] == [made["code"]]
    anonymous = {"Authorization": "none"}
    answer = await api.http.post("/v1/sessions", json={"code": made["code"]}, headers=anonymous)
    assert answer.status_code == 201
    cookie = answer.headers["set-cookie"]
    secret = cookie.partition("=")[2].partition(";")[0]
    assert cookie.startswith(f"{SESSION_COOKIE}=ts_")
    for attribute in ("HttpOnly", "Secure", "Path=/", "SameSite=lax"):
        assert attribute in cookie
    assert "Domain" not in cookie
    again = await api.http.post("/v1/sessions", json={"code": made["code"]}, headers=anonymous)
    problem(again, 401, "invalid-code")

    del api.http.headers["Authorization"]
    signed_in = {"Cookie": f"{SESSION_COOKIE}={secret}"}
    current = await api.http.get("/v1/sessions/current", headers=signed_in)
    assert current.status_code == 200
    assert (current.json()["subject"], current.json()["scopes"]) == ("operator", ["platform"])
    assert (await api.http.get("/v1/tenants", headers=signed_in)).status_code == 200
    (document,) = await platform.outbox("tenant.credentials.v1", current.json()["id"])
    assert document["payload"]["kind"] == "session"

    problem(await api.http.delete("/v1/sessions/current", headers=signed_in), 403, "csrf-token")
    out = await api.http.delete(
        "/v1/sessions/current", headers={**signed_in, "X-CSRF-Token": current.json()["csrf_token"]}
    )
    assert out.status_code == 204
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert (await api.http.get("/v1/sessions/current", headers=signed_in)).status_code == 401


async def test_a_code_ends_after_ten_minutes(start_api):
    clock = ManualClock(datetime.now(UTC))
    api = await start_api(clock)
    await api.sign_in()
    made = await new_code(api)
    clock.advance(timedelta(minutes=10))
    problem(await api.http.post("/v1/sessions", json={"code": made["code"]}), 401, "invalid-code")


async def test_the_page_signs_in_and_goes_on_to_an_allowed_address(api):
    made = await new_code(api, next="http://billing.test/console")
    del api.http.headers["Authorization"]
    for _ in range(2):  # looking uses nothing up
        page = await api.http.get(made["url"])
        assert page.status_code == 200
        assert made["code"] in page.text
        assert "form-action 'self' http://billing.test;" in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-store"
    form = {"code": made["code"], "next": "http://billing.test/console"}
    foreign = await api.http.post("/signin", data=form, headers={"Origin": "http://evil.test"})
    problem(foreign, 403, "forbidden")
    done = await api.http.post("/signin", data=form, headers={"Origin": "http://tenant.test"})
    assert (done.status_code, done.headers["location"]) == (303, "http://billing.test/console")
    assert done.headers["set-cookie"].startswith(f"{SESSION_COOKIE}=ts_")
    again = await api.http.post("/signin", data=form)
    assert again.status_code == 401
    assert 'role="alert"' in again.text
    assert made["code"] not in again.text


async def test_nobody_is_sent_to_an_address_that_is_not_allowed(api):
    problem(await api.http.post("/v1/sign-in-codes", json={"next": "http://evil.test/"}), 422, "invalid-request")
    problem(await api.http.get("/signin", params={"next": "//evil.test"}), 422, "invalid-request")
    made = await new_code(api)
    form = {"code": made["code"], "next": "https://evil.test"}
    problem(await api.http.post("/signin", data=form), 422, "invalid-request")


async def test_what_stands_in_the_address_is_not_markup(api):
    page = await api.http.get("/signin", params={"code": '"><script>alert(1)</script>'})
    assert "<script>" not in page.text
