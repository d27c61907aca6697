"""Secrets in configuration: written, never shown, read by the services that a namespace names, destroyed with a key."""

import base64
import json
import logging
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from tenant_service.audit import Actor
from tenant_service.config.secrets import destroy_tenant_key
from tenantry import StartupRefused

CANARY = "hunter2-canary-5f1e"
SCHEMA = {
    "type": "object",
    "properties": {
        "host": {"type": "string"},
        "login": {
            "type": "object",
            "properties": {
                "user": {"type": "string"},
                "password": {"type": "string", "minLength": 8, "writeOnly": True},
            },
        },
        "token": {"type": "string", "writeOnly": True},
    },
    "additionalProperties": False,
}
OPERATOR = Actor(subject="operator", kind="operator", credential_id="test")


async def problem(answer, status, kind):
    assert (answer.status_code, answer.json()["type"]) == (status, kind), answer.text
    assert CANARY not in answer.text
    return answer.json()


@pytest.fixture
async def namespace(api):
    name = f"s{uuid4().hex[:8]}"
    record = {"schema": SCHEMA, "secret_readers": ["app"]}
    assert (await api.http.put(f"/v1/config-schemas/{name}", json=record)).status_code == 201
    return name


async def everything_in(database) -> str:
    """Every row of every table, as text."""
    async with database.connect() as connection:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'system'")
        parts = []
        for table in tables:
            rows = await connection.fetch(f'SELECT t::text AS row FROM system."{table["tablename"]}" AS t')
            parts += [row["row"] for row in rows]
        payloads = await connection.fetch("SELECT convert_from(payload, 'UTF8') AS text FROM system.outbox")
        return "\n".join([*parts, *(row["text"] or "" for row in payloads)])


async def reveal(api, tenant, namespace, *pointers, client="app"):
    headers = {"Authorization": f"Bearer {await api.token(client)}"}
    path = f"/v1/tenants/{tenant['id']}/config/{namespace}/secrets"
    return await api.http.post(path, json={"pointers": list(pointers)}, headers=headers)


async def test_a_secret_is_nowhere_to_be_seen(api, database, platform, namespace, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    tenant = await api.create(config={namespace: {"token": CANARY}})
    base = f"/v1/tenants/{tenant['id']}/config/{namespace}"
    answers = [
        await api.http.put(base, json={"host": "h", "login": {"user": "u", "password": CANARY}, "token": CANARY}),
        await api.http.put(base, json={"login": {"password": CANARY}, "host": 5}),
        await api.http.put(base, json={"login": {"password": {"x": CANARY}}}),
        await api.http.put(base, json={"login": {"password": [CANARY]}}),
        await api.http.put(base, json={"login": CANARY}),
        await api.http.get(base),
        await api.http.get(f"{base}/effective", params={"provenance": "true"}),
        await api.http.get(f"{base}/versions"),
        await api.http.get(f"{base}/versions/1"),
        await api.http.get(f"{base}/diff", params={"from": 0}),
        await api.http.get(f"{base}/diff", params={"from": 1, "to": 2}),
        await api.http.post(f"{base}/rollback", json={"version": 1}),
        await api.http.get(f"/v1/tenants/{tenant['id']}/audit"),
    ]
    assert [answer.status_code for answer in answers] == [
        200,
        422,
        422,
        422,
        422,
        200,
        200,
        200,
        200,
        200,
        200,
        200,
        200,
    ]
    for answer in answers:
        assert CANARY not in answer.text, answer.url
        assert "ciphertext" not in answer.text, answer.url
    shown = answers[5].json()["document"]
    assert shown["token"].keys() == {"secret", "set_at"}
    assert shown["login"] == {"user": "u", "password": {"secret": True, "set_at": shown["login"]["password"]["set_at"]}}
    assert answers[6].json()["provenance"].keys() == {"/host", "/login/user", "/login/password", "/token"}
    text = await everything_in(database)
    assert CANARY not in text
    assert base64.b64encode(CANARY.encode()).decode() not in text
    outbox = json.dumps(await platform.outbox("tenant.config.v1", f"{tenant['id']}/{namespace}"), default=str)
    assert '"$secret": {"set_at"' in outbox
    assert "ciphertext" not in outbox
    printed = capsys.readouterr()
    assert CANARY not in caplog.text + printed.out + printed.err


async def test_a_secret_is_kept_replaced_and_inherited(api, namespace):
    tenant = await api.create()
    base = f"/v1/tenants/{tenant['id']}/config/{namespace}"
    await api.http.put(f"/v1/config/platform/{namespace}", json={"token": "platform-token"})
    first = (await api.http.put(base, json={"login": {"user": "a", "password": "password-1"}})).json()
    # As it was shown: kept. With the value that it has: nothing changes.
    kept = (await api.http.put(base, json=first["document"] | {"host": "h"})).json()
    assert (kept["version"], kept["document"]["login"]) == (2, first["document"]["login"])
    same = (await api.http.put(base, json={"host": "h", "login": {"user": "a", "password": "password-1"}})).json()
    assert same["version"] == 2
    values = (await reveal(api, tenant, namespace, "/login/password", "/token")).json()["values"]
    assert values == {"/login/password": "password-1", "/token": "platform-token"}

    await api.http.put(base, json={"login": {"password": "password-2"}})
    assert (await reveal(api, tenant, namespace, "/login/password")).json()["values"] == {
        "/login/password": "password-2"
    }
    await api.http.post(f"{base}/rollback", json={"version": 1})
    assert (await reveal(api, tenant, namespace, "/login/password")).json()["values"] == {
        "/login/password": "password-1"
    }
    assert (await api.http.put(base, json={"login": {"password": None}})).status_code == 200
    await problem(await reveal(api, tenant, namespace, "/login/password"), 404, "not-found")
    # There is nothing to keep here.
    marker = {"token": {"secret": True, "set_at": "2026-01-01T00:00:00Z"}}
    await problem(await api.http.put(base, json=marker), 422, "invalid-config")


async def test_only_services_that_the_namespace_names_read_secrets(api, namespace, platform):
    tenant, other = await api.create(), await api.create()
    await api.http.put(f"/v1/tenants/{tenant['id']}/config/{namespace}", json={"token": "a-token", "host": "h"})
    answer = await reveal(api, tenant, namespace, "/token")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert (await platform.audit(UUID(tenant["id"])))[-1] == "config.secrets_read"
    await problem(await reveal(api, tenant, namespace, "/token", client="operator"), 403, "forbidden")
    await problem(await reveal(api, tenant, namespace, "/host"), 404, "not-found")
    await problem(await reveal(api, tenant, namespace, "/login/password"), 404, "not-found")
    await problem(await reveal(api, other, namespace, "/token"), 404, "not-found")
    await problem(await reveal(api, tenant, "no-such", "/token"), 404, "not-found")
    await problem(await reveal(api, tenant, namespace, "token"), 422, "invalid-request")
    await problem(await reveal(api, tenant, namespace, ""), 422, "invalid-request")
    await problem(await reveal(api, tenant, namespace), 422, "invalid-request")
    await api.http.put(f"/v1/config-schemas/{namespace}", json=SCHEMA)
    await problem(await reveal(api, tenant, namespace, "/token"), 403, "forbidden")


async def test_what_has_been_written_openly_does_not_become_a_secret(api, namespace):
    tenant = await api.create()
    base = f"/v1/tenants/{tenant['id']}/config/{namespace}"
    await api.http.put(base, json={"host": "h", "token": "t"})
    await api.http.delete(base)
    path = f"/v1/config-schemas/{namespace}"
    for pointer, more in (("host", True), ("token", False)):
        schema = json.loads(json.dumps(SCHEMA))
        schema["properties"][pointer]["writeOnly"] = more
        await problem(await api.http.put(f"{path}?force=true", json=schema), 409, "secrets-in-use")
    unused = json.loads(json.dumps(SCHEMA))
    unused["properties"]["login"]["properties"]["user"]["writeOnly"] = True
    assert (await api.http.put(path, json=unused)).status_code == 200


async def test_ciphertexts_open_only_where_they_were_made(api, database, namespace):
    tenant, other = await api.create(), await api.create()
    for each in (tenant, other):
        document = {"token": f"token of {each['id']}", "login": {"password": "password-1"}}
        await api.http.put(f"/v1/tenants/{each['id']}/config/{namespace}", json=document)
    async with database.connect() as connection:
        # Somebody with write access to the table moves a secret to another key, and one to another tenant.
        await connection.execute(
            "UPDATE system.config_layer SET document = jsonb_set(document, '{token}', document #> '{login,password}') "
            "WHERE namespace = $1 AND name = $2",
            namespace,
            tenant["id"],
        )
        await connection.execute(
            "UPDATE system.config_layer AS mine SET document = jsonb_set(mine.document, '{login,password}', "
            "theirs.document #> '{login,password}') FROM system.config_layer AS theirs "
            "WHERE mine.namespace = $1 AND theirs.namespace = $1 AND mine.name = $2 AND theirs.name = $3",
            namespace,
            other["id"],
            tenant["id"],
        )
    await problem(await reveal(api, tenant, namespace, "/token"), 409, "secret-unreadable")
    await problem(await reveal(api, other, namespace, "/login/password"), 409, "secret-unreadable")
    assert (await reveal(api, other, namespace, "/token")).status_code == 200


async def test_without_its_key_a_tenants_secrets_are_gone(api, database, namespace, platform):
    tenant, other = await api.create(), await api.create()
    for each in (tenant, other):
        await api.http.put(f"/v1/tenants/{each['id']}/config/{namespace}", json={"token": "a-token"})
    now = datetime.now(UTC)
    async with api.runtime.transactions.begin() as session:
        assert await destroy_tenant_key(session, UUID(tenant["id"]), actor=OPERATOR, now=now)
    async with api.runtime.transactions.begin() as session:
        assert not await destroy_tenant_key(session, UUID(tenant["id"]), actor=OPERATOR, now=now)
    await problem(await reveal(api, tenant, namespace, "/token"), 409, "key-destroyed")
    base = f"/v1/tenants/{tenant['id']}/config/{namespace}"
    await problem(await api.http.put(base, json={"token": "new"}), 409, "key-destroyed")
    assert (await api.http.get(base)).json()["document"]["token"]["secret"] is True
    assert (await reveal(api, other, namespace, "/token")).json()["values"] == {"/token": "a-token"}
    async with database.connect() as connection:
        row = await connection.fetchrow("SELECT * FROM system.config_key WHERE owner_id = $1", UUID(tenant["id"]))
        assert (row["nonce"], row["wrapped_key"]) == (None, None)
        assert row["destroyed_at"] is not None
    assert (await platform.audit(UUID(tenant["id"])))[-1] == "config.key_destroyed"


async def test_the_master_key_is_changed(api, start_api, namespace, tmp_path):
    tenant = await api.create()
    await api.http.put(f"/v1/tenants/{tenant['id']}/config/{namespace}", json={"token": "a-token"})
    old = api.runtime.settings.master_key
    new_file = tmp_path / "master.key"
    new_file.write_text(base64.b64encode(bytes(range(32, 64))).decode() + "\n")
    with pytest.raises(StartupRefused, match="not the key"):
        await start_api(master_key="", master_key_file=new_file)
    with pytest.raises(StartupRefused, match="give one"):
        await start_api(master_key_file=new_file)
    with pytest.raises(StartupRefused, match="cannot be read"):
        await start_api(master_key="", master_key_file=tmp_path / "none")
    try:
        both = await start_api(master_key="", master_key_file=new_file, previous_master_key=old)
        await both.sign_in()
        assert (await reveal(both, tenant, namespace, "/token")).json()["values"] == {"/token": "a-token"}
        for _ in range(2):
            rewrapped = (await both.http.post("/v1/master-key/rewrap")).json()
            assert rewrapped["signing_keys"] >= 1
            assert rewrapped["data_keys"] >= 1
        after = await start_api(master_key="", master_key_file=new_file)
        await after.sign_in()
        assert (await reveal(after, tenant, namespace, "/token")).json()["values"] == {"/token": "a-token"}
        with pytest.raises(StartupRefused, match="not the key"):
            await start_api()
    finally:
        # The other tests of this database know the old key.
        back = await start_api(previous_master_key=new_file.read_text().strip())
        await back.sign_in()
        assert (await back.http.post("/v1/master-key/rewrap")).status_code == 200
