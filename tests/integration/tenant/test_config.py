"""Layered configuration over HTTP: layers, versions, schemas, who may write, and what must not come in."""

import asyncio
from uuid import uuid4

import pytest

from tenantry.testing import eventually

MAIL = {
    "type": "object",
    "properties": {
        "from": {"type": "string"},
        "retries": {"type": "integer", "minimum": 0},
        "hosts": {"type": "array", "items": {"type": "string"}},
        "smtp": {
            "type": "object",
            "properties": {"host": {"type": "string"}, "port": {"type": "integer"}},
            "required": ["host"],
        },
    },
    "additionalProperties": False,
}
JSON = {"Content-Type": "application/json"}


async def problem(answer, status, kind):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["type"] == kind, answer.text
    return answer.json()


async def put(api, path, document, status=(200, 201), **more):
    answer = await api.http.put(path, json=document, **more)
    assert answer.status_code in status, answer.text
    return answer.json()


async def key_of(api, tenant, *scopes):
    """Headers of a tenant's own credential."""
    made = await api.http.post(f"/v1/tenants/{tenant['id']}/api-keys", json={"name": "k", "scopes": list(scopes)})
    assert made.status_code == 201, made.text
    return {"Authorization": f"Bearer {made.json()['key']}"}


async def active(api, **wanted):
    tenant = await api.create(**wanted)
    await api.activate(tenant["id"])
    directory = api.runtime.state.directory
    await eventually(lambda: directory.resolve(tenant["id"]).status == "active")
    return tenant


@pytest.fixture
async def namespace(api):
    """A namespace of this test's own, with a schema."""
    name = f"n{uuid4().hex[:8]}"
    await put(api, f"/v1/config-schemas/{name}", {"schema": MAIL})
    return name


async def test_layers_merge_and_say_where_values_came_from(api, namespace):
    tenant = await api.create()
    base = f"/v1/tenants/{tenant['id']}/config/{namespace}"
    await put(api, f"/v1/config/platform/{namespace}", {"from": "p@x", "retries": 1, "hosts": ["a", "b"]})
    region = f"r-{namespace}"  # with a store that takes nobody
    assert (await api.http.post("/v1/stores", json={"name": region, "region": region, "capacity": 0})).is_success
    await put(api, f"/v1/config/region/{region}/{namespace}", {"from": "another region"})
    await put(api, f"/v1/config/tier/standard/{namespace}", {"smtp": {"host": "tier.example"}, "retries": 2})
    await put(api, base, {"from": None, "hosts": ["c"], "smtp": {"port": 25}})

    answer = await api.http.get(f"{base}/effective", params={"provenance": "true"})
    assert answer.json()["document"] == {
        "from": "p@x",
        "retries": 2,
        "hosts": ["c"],
        "smtp": {"host": "tier.example", "port": 25},
    }
    assert answer.json()["provenance"] == {
        "/from": {"layer": "platform", "name": "", "version": 1},
        "/retries": {"layer": "tier", "name": "standard", "version": 1},
        "/smtp/host": {"layer": "tier", "name": "standard", "version": 1},
        "/hosts": {"layer": "tenant", "name": tenant["id"], "version": 1},
        "/smtp/port": {"layer": "tenant", "name": tenant["id"], "version": 1},
    }
    assert (answer.json()["valid"], answer.json()["errors"]) == (True, [])
    without = await api.http.get(f"{base}/effective")
    assert without.json()["provenance"] is None

    assert (await api.http.delete(base)).status_code == 204
    assert (await api.http.delete(base)).status_code == 204
    await problem(await api.http.get(base), 404, "not-found")
    left = await api.http.get(f"{base}/effective")
    assert left.json()["document"]["hosts"] == ["a", "b"]


async def test_every_write_is_a_version(api, platform, namespace):
    tenant = await api.create()
    base = f"/v1/tenants/{tenant['id']}/config/{namespace}"
    first = await api.http.put(base, json={"retries": 1, "from": "a"})
    assert (first.status_code, first.headers["etag"]) == (201, '"1"')
    again = await api.http.put(base, json={"from": "a", "retries": 1})
    assert (again.status_code, again.headers["etag"]) == (200, '"1"')
    before = (await api.http.get(f"{base}/effective")).json()
    await problem(await api.http.put(base, json={}, headers={"If-Match": '"7"'}), 412, "stale-version")
    second = await api.http.put(base, json={"retries": 2, "hosts": ["x"]}, headers={"If-Match": '"1"'})
    assert (second.status_code, second.headers["etag"]) == (200, '"2"')
    assert (await api.http.get(base)).json()["document"] == {"retries": 2, "hosts": ["x"]}

    versions = (await api.http.get(f"{base}/versions")).json()["items"]
    assert [(each["version"], each["created_by"], each["deleted"]) for each in versions] == [
        (2, "operator", False),
        (1, "operator", False),
    ]
    page = (await api.http.get(f"{base}/versions", params={"limit": 1})).json()
    rest = (await api.http.get(f"{base}/versions", params={"cursor": page["next_cursor"]})).json()
    assert [each["version"] for each in rest["items"]] == [1]
    assert (await api.http.get(f"{base}/versions/1")).json()["document"] == {"retries": 1, "from": "a"}
    await problem(await api.http.get(f"{base}/versions/9"), 404, "not-found")

    found = (await api.http.get(f"{base}/diff", params={"from": 1, "to": 2})).json()["items"]
    assert found == [
        {"op": "remove", "pointer": "/from", "before": "a", "after": None},
        {"op": "add", "pointer": "/hosts", "before": None, "after": ["x"]},
        {"op": "replace", "pointer": "/retries", "before": 1, "after": 2},
    ]
    assert (await api.http.get(f"{base}/diff", params={"from": 1})).json()["items"] == found
    await problem(await api.http.get(f"{base}/diff", params={"from": 1, "to": 9}), 404, "not-found")

    back = await api.http.post(f"{base}/rollback", json={"version": 1})
    assert (back.status_code, back.headers["etag"]) == (200, '"3"')
    after = (await api.http.get(f"{base}/effective")).json()
    assert after == before
    repeated = await api.http.post(f"{base}/rollback", json={"version": 1})
    assert repeated.headers["etag"] == '"3"'
    await problem(await api.http.post(f"{base}/rollback", json={"version": 9}), 404, "not-found")
    await problem(await api.http.post(f"{base}/rollback", json={"version": 1, "x": 1}), 422, "invalid-request")
    assert (await api.http.get(f"{base}/versions")).json()["items"][0]["rolled_back_to"] == 1

    assert (await api.http.delete(base)).status_code == 204
    records = await platform.outbox("tenant.config.v1", f"{tenant['id']}/{namespace}")
    assert [(row["version"], row["payload"] and row["payload"]["document"]) for row in records] == [
        (1, {"from": "a", "retries": 1}),
        (2, {"retries": 2, "hosts": ["x"]}),
        (3, {"from": "a", "retries": 1}),
        (4, None),
    ]
    story = [row for row in await platform.outbox("tenant.events.v1", tenant["id"]) if "config" in row["type"]]
    assert [row["type"] for row in story] == [
        "tenant.config_changed.v1",
        "tenant.config_changed.v1",
        "tenant.config_rolled_back.v1",
        "tenant.config_changed.v1",
    ]
    assert story[1]["payload"]["keys"] == ["/from", "/hosts", "/retries"]
    actions = [action for action in await platform.audit(tenant["id"]) if action.startswith("config")]
    assert actions == ["config.put", "config.put", "config.roll_back", "config.delete"]
    # A layer that is written again goes on where it was.
    assert (await api.http.put(base, json={})).headers["etag"] == '"5"'


async def test_what_a_true_is_a_one_is_not(api, namespace):
    await put(api, f"/v1/config-schemas/{namespace}", {"type": "object"})
    path = f"/v1/config/platform/{namespace}"
    await put(api, path, {"a": 1})
    assert (await put(api, path, {"a": True}))["version"] == 2
    assert (await put(api, path, {"a": 1e2}))["version"] == 3
    assert (await put(api, path, {"a": 100}))["version"] == 3


BODIES = {
    "no body": (b"", 400, "malformed-json"),
    "not JSON": (b"{", 400, "malformed-json"),
    "NaN": (b'{"retries": NaN}', 400, "malformed-json"),
    "infinity": (b'{"retries": -Infinity}', 400, "malformed-json"),
    "not UTF-8": (b'{"from": "\xff\xfe"}', 400, "malformed-json"),
    "deep": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 413, "payload-too-large"),
    "deeper than Python": (b"[" * 30_000 + b"]" * 30_000, 400, "malformed-json"),
    "too deep": (b'{"a":' * 20 + b"1" + b"}" * 20, 422, "invalid-config"),
    "huge number": (b'{"retries": ' + b"9" * 5_000 + b"}", 400, "malformed-json"),
    "large number": (b'{"retries": 9007199254740992}', 422, "invalid-config"),
    "overflow": (b'{"retries": 1e400}', 422, "invalid-config"),
    "huge": (b'{"from": "' + b"x" * 70_000 + b'"}', 413, "payload-too-large"),
    "array": (b"[]", 422, "invalid-config"),
    "null": (b"null", 422, "invalid-config"),
    "a key twice": (b'{"from": "a", "from": "b"}', 422, "invalid-config"),
    "a key twice below": (b'{"smtp": {"host": "a", "host": "b"}}', 422, "invalid-config"),
    "NUL": (b'{"from": "a\\u0000b"}', 422, "invalid-config"),
    "NUL in a key": (b'{"a\\u0000b": 1}', 422, "invalid-config"),
    "lone surrogate": (b'{"from": "\\ud800"}', 422, "invalid-config"),
    "lone surrogate in a key": (b'{"\\udfff": {"x": "\\ud800"}}', 422, "invalid-config"),
    "reserved key": (b'{"from": {"$secret": {"set_at": "x"}}}', 422, "invalid-config"),
    "long key": (b'{"' + b"k" * 200 + b'": 1}', 422, "invalid-config"),
    "unknown key": (b'{"form": "a"}', 422, "invalid-config"),
    "wrong type": (b'{"retries": "3"}', 422, "invalid-config"),
    "boolean as number": (b'{"retries": true}', 422, "invalid-config"),
    "below the minimum": (b'{"retries": -1}', 422, "invalid-config"),
    "incomplete object": (b'{"smtp": {"port": 25}}', 422, "invalid-config"),
    "null in an array": (b'{"hosts": [null]}', 422, "invalid-config"),
}


async def test_bad_documents(api, namespace):
    tenant = await api.create()
    path = f"/v1/tenants/{tenant['id']}/config/{namespace}"
    for name, (content, status, kind) in BODIES.items():
        answer = await api.http.put(path, content=content, headers=JSON)
        assert (name, answer.status_code, answer.json()["type"]) == (name, status, kind), answer.text
        if status == 422:
            assert answer.json()["errors"][0]["loc"][0] == "body"
        await problem(await api.http.get(path), 404, "not-found")


async def test_a_document_comes_as_json(api, namespace):
    path = f"/v1/config/platform/{namespace}"
    answer = await api.http.put(path, content=b"{}", headers={"Content-Type": "text/plain"})
    await problem(answer, 415, "unsupported-media-type")


PLACES = {
    "/v1/config/platform/No-Such": 422,
    "/v1/config/platform/no-such": 404,
    "/v1/config/tier/no-such-tier/branding": 404,
    "/v1/config/region/UP/branding": 422,
    "/v1/config/region/mars/branding": 404,
    "/v1/config/galaxy/x/branding": 404,
    f"/v1/tenants/{uuid4()}/config/branding": 404,
    "/v1/tenants/no-such-org/config/branding": 404,
}


async def test_bad_places(api):
    for path, status in PLACES.items():
        answer = await api.http.put(path, json={})
        assert (path, answer.status_code) == (path, status), answer.text


async def test_who_may_read_and_write(api, namespace):
    one, other = await active(api), await active(api)
    admin = await key_of(api, one, "tenant:admin")
    writer = await key_of(api, one, "tenant:write")
    operator = api.http.headers.pop("Authorization")
    own, foreign = (f"/v1/tenants/{tenant['id']}/config/{namespace}" for tenant in (one, other))

    for suffix in ("", "/effective", "/versions", "/versions/1", "/diff?from=0"):
        missing = await api.http.get(f"/v1/tenants/{uuid4()}/config/{namespace}{suffix}", headers=admin)
        answer = await api.http.get(foreign + suffix, headers=admin)
        assert await problem(answer, 404, "not-found") | {"instance": ""} == missing.json() | {"instance": ""}
    await problem(await api.http.put(foreign, json={}, headers=admin), 404, "not-found")
    await problem(await api.http.delete(foreign, headers=admin), 404, "not-found")
    await problem(await api.http.post(f"{foreign}/rollback", json={"version": 1}, headers=admin), 404, "not-found")
    for method, path in (
        ("PUT", f"/v1/config/platform/{namespace}"),
        ("PUT", f"/v1/config/tier/standard/{namespace}"),
        ("GET", f"/v1/config-schemas/{namespace}"),
        ("PUT", f"/v1/config-schemas/{namespace}"),
        ("GET", "/v1/flags"),
        ("POST", "/v1/master-key/rewrap"),
    ):
        await problem(await api.http.request(method, path, json={}, headers=admin), 403, "forbidden")
    await problem(await api.http.put(own, json={}, headers=writer), 403, "forbidden")
    await problem(await api.http.get(own, headers=writer), 403, "forbidden")
    await problem(await api.http.get(own), 401, "unauthenticated")

    assert (await api.http.put(own, json={"from": "me"}, headers=admin)).status_code == 201
    assert (await api.http.get(f"{own}/effective", headers=admin)).json()["document"] == {"from": "me"}

    api.http.headers["Authorization"] = operator
    await put(api, f"/v1/config-schemas/{namespace}", {"schema": MAIL, "writable_by": "operator"})
    await problem(await api.http.put(own, json={"from": "x"}, headers=admin), 403, "operator-only")
    await problem(await api.http.delete(own, headers=admin), 403, "operator-only")
    await problem(await api.http.post(f"{own}/rollback", json={"version": 1}, headers=admin), 403, "operator-only")
    assert (await api.http.get(own, headers=admin)).json()["document"] == {"from": "me"}
    assert (await api.http.put(own, json={"from": "op"})).status_code == 200


async def test_a_schema_that_documents_break_is_refused_unless_forced(api, namespace):
    tenant = await api.create()
    path = f"/v1/config-schemas/{namespace}"
    await put(api, f"/v1/tenants/{tenant['id']}/config/{namespace}", {"retries": 5})
    strict = {"type": "object", "properties": {"retries": {"maximum": 3}, "from": {"type": "string"}}}
    told = await problem(await api.http.put(path, json=strict), 409, "config-conflict")
    assert told["errors"] == [{"loc": ["tenant", tenant["id"], "retries"], "msg": "maximum must be 3"}]
    assert (await api.http.get(path)).json()["version"] == 1
    assert (await put(api, f"{path}?force=true", strict))["version"] == 2
    effective = (await api.http.get(f"/v1/tenants/{tenant['id']}/config/{namespace}/effective")).json()
    assert (effective["valid"], effective["document"]) == (False, {"retries": 5})
    assert effective["errors"] == [{"loc": ["retries"], "msg": "maximum must be 3"}]
    listed = (await api.http.get(f"{path}/versions")).json()["items"]
    assert [each["version"] for each in listed] == [2, 1]


async def test_required_keys_may_come_from_any_layer(api, namespace):
    tenant = await api.create()
    base = f"/v1/tenants/{tenant['id']}/config/{namespace}"
    platform = f"/v1/config/platform/{namespace}"
    await put(api, f"/v1/config-schemas/{namespace}", MAIL | {"required": ["from", "retries"]})
    await put(api, platform, {"from": "a"})
    told = await problem(await api.http.put(base, json={"hosts": []}), 422, "invalid-config")
    assert told["errors"] == [{"loc": ["body"], "msg": "'retries' is a required property"}]
    await put(api, base, {"retries": 1})
    # What the tenant stands on cannot be taken away by mistake.
    told = await problem(await api.http.put(platform, json={}), 409, "config-conflict")
    assert told["errors"][0]["loc"] == ["tenant", tenant["id"]]
    await problem(await api.http.delete(platform), 409, "config-conflict")
    assert (await api.http.delete(f"{platform}?force=true")).status_code == 204
    assert not (await api.http.get(f"{base}/effective")).json()["valid"]


SCHEMAS = {
    "no object": ({"type": "string"}, "invalid-schema"),
    "no type": ({}, "invalid-schema"),
    "unknown type": ({"type": "object", "properties": {"a": {"type": "text"}}}, "invalid-schema"),
    "bad pattern": ({"type": "object", "properties": {"a": {"pattern": "("}}}, "invalid-schema"),
    "remote reference": ({"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}}, "invalid-schema"),
    "file reference": ({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, "invalid-schema"),
    "dangling reference": ({"type": "object", "properties": {"a": {"$ref": "#/$defs/no"}}}, "invalid-schema"),
    "reference to data": ({"type": "object", "examples": [{}], "allOf": [{"$ref": "#/examples/0"}]}, "invalid-schema"),
    "identity": ({"type": "object", "$id": "https://x.example/"}, "invalid-schema"),
    "other dialect": ({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}, "invalid-schema"),
    "secret in an array": (
        {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string", "writeOnly": True}}}},
        "invalid-schema",
    ),
    "secret behind a reference": (
        {
            "type": "object",
            "$defs": {"s": {"type": "string", "writeOnly": True}},
            "properties": {"a": {"$ref": "#/$defs/s"}},
        },
        "invalid-schema",
    ),
    "secret that is no text": (
        {"type": "object", "properties": {"a": {"type": "integer", "writeOnly": True}}},
        "invalid-schema",
    ),
    "unknown writer": ({"schema": {"type": "object"}, "writable_by": "anybody"}, "invalid-request"),
    "unknown field": ({"schema": {"type": "object"}, "version": 3}, "invalid-request"),
    "record without schema": ({"schema": None}, "invalid-request"),
}


async def test_schemas_that_cannot_be_used(api):
    for name, (schema, kind) in SCHEMAS.items():
        answer = await api.http.put("/v1/config-schemas/never", json=schema)
        assert (name, answer.status_code, answer.json()["type"]) == (name, 422, kind), answer.text
    await problem(await api.http.get("/v1/config-schemas/never"), 404, "not-found")


async def test_a_schema_that_refers_to_itself(api, namespace):
    path = f"/v1/config-schemas/{namespace}"
    tree = {"type": "object", "properties": {"child": {"$ref": "#"}}, "additionalProperties": False}
    await put(api, path, tree)
    await put(api, f"/v1/config/platform/{namespace}", {"child": {"child": {}}})
    await problem(
        await api.http.put(f"/v1/config/platform/{namespace}", json={"child": {"x": 1}}), 422, "invalid-config"
    )
    loop = {"type": "object", "$defs": {"a": {"$ref": "#/$defs/a"}}, "properties": {"child": {"$ref": "#/$defs/a"}}}
    await problem(await api.http.put(path, json=loop), 409, "config-conflict")


async def test_features_have_a_fixed_schema(api):
    await problem(await api.http.put("/v1/config-schemas/features", json={"type": "object"}), 409, "built-in-namespace")


async def test_a_tenant_is_created_with_its_configuration(api, platform, namespace):
    tenant = await api.create(config={namespace: {"retries": 2}, "branding": {"name": "Acme"}})
    base = f"/v1/tenants/{tenant['id']}/config"
    assert (await api.http.get(f"{base}/{namespace}")).json()["document"] == {"retries": 2}
    assert (await api.http.get(f"{base}/branding")).json()["document"] == {"name": "Acme"}
    assert len(await platform.outbox("tenant.config.v1", f"{tenant['id']}/{namespace}")) == 1


async def test_a_tenant_with_a_wrong_configuration_is_not_created(api):
    body = {"slug": "never-made", "name": "x", "tier": "standard", "admin_email": "a@x.example"}
    for config, loc in (
        ({"branding": {"nam": "x"}}, ["branding"]),
        ({"branding": {"colours": {"text": "red"}}}, ["branding", "colours", "text"]),
        ({"branding": {"name": "\x00"}}, ["branding", "name"]),
        ({"no-such": {}}, ["no-such"]),
    ):
        answer = await api.http.post("/v1/tenants", json=body | {"config": config})
        told = await problem(answer, 422, "invalid-config")
        assert told["errors"][0]["loc"] == ["body", "config", *loc]
    assert (await api.http.get("/v1/tenants", params={"q": "never-made"})).json()["items"] == []


async def test_concurrent_writers_make_one_version_each(api, namespace):
    tenant = await api.create()
    base = f"/v1/tenants/{tenant['id']}/config/{namespace}"
    answers = await asyncio.gather(*(api.http.put(base, json={"retries": number}) for number in range(8)))
    assert sorted(answer.json()["version"] for answer in answers) == list(range(1, 9))
    assert sum(answer.status_code == 201 for answer in answers) == 1
    guarded = await asyncio.gather(
        *(api.http.put(base, json={"retries": 10 + n}, headers={"If-Match": '"8"'}) for n in range(4))
    )
    assert sorted(answer.status_code for answer in guarded) == [200, 412, 412, 412]


async def test_other_replicas_know_what_was_written(start_api, api, namespace):
    replica = await start_api()
    tenant = await active(api)
    await put(api, f"/v1/tenants/{tenant['id']}/config/{namespace}", {"retries": 7})
    state = replica.runtime.state

    def known():
        document = state.directory.resolve(tenant["id"])
        return document and state.configuration.config.view(document, None, namespace).get("retries")

    await eventually(lambda: known() == 7)
    await api.http.delete(f"/v1/tenants/{tenant['id']}/config/{namespace}")
    await eventually(lambda: known() is None)
    late = await start_api()
    assert late.runtime.state.configuration.config.schema(namespace).schema == MAIL


async def test_of_two_who_write_first_one_hears_of_the_other(api, namespace):
    tenant = await api.create()
    path = f"/v1/tenants/{tenant['id']}/config/{namespace}"
    first = {**JSON, "If-None-Match": "*"}
    answers = await asyncio.gather(
        *(api.http.put(path, json={"retries": number}, headers=first) for number in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 412, 412, 412, 412, 412]
    await problem(await api.http.put(path, json={"retries": 9}, headers=first), 412, "stale-version")
    # A layer that was deleted says nothing, whatever it said before.
    assert (await api.http.delete(path)).status_code == 204
    again = await api.http.put(path, json={"retries": 9}, headers=first)
    assert again.status_code == 201
    for wrong in ({"If-None-Match": again.headers["ETag"]}, {"If-None-Match": "*", "If-Match": again.headers["ETag"]}):
        await problem(await api.http.put(path, json={"retries": 1}, headers=JSON | wrong), 400, "malformed-request")
    for other in (f"/v1/tiers/{namespace}", f"/v1/flags/{namespace}"):
        made = [(await api.http.put(other, json={}, headers=first)).status_code for _ in range(2)]
        assert made == [201, 412]
