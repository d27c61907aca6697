"""Exports: what is in their files, who may have them, and until when."""

import gzip
import hashlib
import json
import re
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import obstore
import pytest
from secret_watch import watched
from sqlalchemy import event
from tests.integration.tenant.conftest import START
from tests.integration.tenant.ending import active, problem, start_end

from tenantry.identity import SESSION_COOKIE

KEPT = timedelta(days=30)


@pytest.fixture
async def end(start_api, platform, tmp_path):
    return await start_end(start_api, platform, tmp_path)


async def test_a_tenant_exports_its_data_and_reads_it_and_no_other(end):
    mine, other = await active(end), await active(end)
    secret = (await end.post(mine["id"], "api-keys", {"name": "a", "scopes": ["tenant:admin"]})).json()["key"]
    as_admin = {"Authorization": f"Bearer {secret}"}
    path = f"/v1/tenants/{mine['id']}"
    asked = await end.api.http.post(f"{path}/export", headers=as_admin)
    assert asked.status_code == 202
    await end.turn()
    await end.answer_app(mine["id"], "tenant.export", tables=[], manifest="m")
    await end.answer_self(mine["id"], "tenant.export")
    await end.turn()

    shown = (await end.api.http.get(f"{path}/exports/{asked.json()['id']}", headers=as_admin)).json()
    listed = (await end.api.http.get(f"{path}/exports", headers=as_admin)).json()
    assert shown["state"] == "succeeded"
    assert listed["items"] == [shown]
    trail = next(file for file in shown["files"] if file["table"] == "system.audit_entry")
    where = f"exports/{shown['id']}/files/{trail['service']}/{trail['file']}"
    answer = await end.api.http.get(f"{path}/{where}", headers=as_admin)
    assert answer.status_code == 200
    rows = [json.loads(line) for line in gzip.decompress(answer.content).splitlines()]
    assert len(rows) == trail["rows"]
    assert {row["chain_id"] for row in rows} == {mine["id"]}
    for id_ in (other["id"], str(uuid4())):
        foreign = await end.api.http.get(f"/v1/tenants/{id_}/{where}", headers=as_admin)
        assert foreign.status_code == 404
    for file in ("nothing.gz", "..", "%2e%2e%2fpasswd", trail["file"] + "x"):
        bad = await end.api.http.get(f"{path}/exports/{shown['id']}/files/tenant/{file}", headers=as_admin)
        assert bad.status_code in {404, 422}
    assert (await end.api.http.get(f"/v1/tenants/{other['id']}/{where}")).status_code == 404


async def test_no_secret_is_in_an_export_and_no_hash_of_one(end, tmp_path):
    tenant = await active(end)
    id_ = tenant["id"]
    key = watched((await end.post(id_, "api-keys", {"name": "a", "scopes": ["tenant:read"]})).json()["key"])
    body = {"email": "p@example.org", "roles": ["owner"]}
    codes = [watched((await end.post(id_, "invitations", body | {"email": f"{n}@e.org"})).json()["code"]) for n in "ab"]
    signed_in = await end.api.http.post("/v1/sessions", json={"code": codes[0]})
    assert signed_in.status_code == 201
    secrets = [key, *codes, watched(signed_in.cookies[SESSION_COOKIE]), signed_in.json()["csrf_token"]]
    await exported(end, id_)

    files = [gzip.decompress(path.read_bytes()) for path in tmp_path.rglob("*.ndjson.gz")]
    everything = b"".join(files).decode()
    assert signed_in.json()["subject"] in everything  # who is a member, but not by what they sign in
    for secret in secrets:
        assert secret not in everything
        assert hashlib.sha256(secret.encode()).hexdigest() not in everything
    columns = {name for file in files for line in file.splitlines() for name in json.loads(line)}
    suspect = {name for name in columns if re.search("secret|hash|token|code|password|wrapped|private|sha256", name)}
    assert suspect == {"content_hash", "hash"}  # of the audit trail's entries


@pytest.mark.usefixtures("platform")
async def test_without_a_store_there_are_no_exports(start_api):
    api = await start_api()
    await api.sign_in()
    tenant = await api.create()
    await api.activate(tenant["id"])
    problem(await api.http.post(f"/v1/tenants/{tenant['id']}/export"), 409, "export-not-configured")
    body = {"grace_days": 1, "export": True}
    problem(await api.http.post(f"/v1/tenants/{tenant['id']}/offboard", json=body), 409, "export-not-configured")
    assert (await api.http.post(f"/v1/tenants/{tenant['id']}/offboard", json={"grace_days": 1})).status_code == 202


async def exported(end, tenant_id):
    """An export that is done, as it is shown."""
    asked = await end.post(tenant_id, "export")
    await end.turn()
    await end.answer_app(tenant_id, "tenant.export", tables=[], manifest="m")
    await end.answer_self(tenant_id, "tenant.export")
    await end.turn()
    return await end.export(tenant_id, asked.json()["id"])


def files_in(directory):
    return {path.relative_to(directory).as_posix() for path in Path(directory).rglob("*") if path.is_file()}


async def test_an_export_can_be_had_until_it_expires_and_is_then_deleted(end, tmp_path):
    tenant = await active(end)
    id_ = tenant["id"]
    (tmp_path / "aside.txt").write_text("not of an export")
    shown = await exported(end, id_)
    assert shown["expires_at"] == "2026-01-31T00:00:00Z"
    first = files_in(tmp_path)
    file = shown["files"][0]
    where = f"/v1/tenants/{id_}/exports/{shown['id']}/files/{file['service']}/{file['file']}"

    end.clock.advance(KEPT - timedelta(seconds=1))
    await end.api.sign_in()
    younger = await exported(end, id_)
    assert await end.delete_expired(KEPT) == 0
    assert (await end.api.http.get(where)).status_code == 200

    end.clock.advance(timedelta(seconds=1))
    problem(await end.api.http.get(where), 410, "export-expired")
    assert await end.delete_expired(KEPT) == len(first) - len({"bootstrap.json", "aside.txt"})
    assert await end.delete_expired(KEPT) == 0
    left = files_in(tmp_path)
    assert left & first == {"bootstrap.json", "aside.txt"}
    assert len(left - first) == len(younger["files"]) + len({"manifest"})
    assert (await end.export(id_, shown["id"]))["files"] == shown["files"]  # what there was is still known


async def test_an_export_that_goes_on_is_not_deleted_and_one_that_was_given_up_is(end, tmp_path):
    tenant = await active(end)
    id_ = tenant["id"]
    asked = (await end.post(id_, "export")).json()
    await end.turn()
    await end.answer_self(id_, "tenant.export")  # the app has not answered
    written = files_in(tmp_path)
    end.clock.advance(2 * KEPT)
    assert await end.delete_expired(KEPT) == 0

    await end.api.sign_in()
    assert (await end.export(id_, asked["id"]))["expires_at"] is None
    assert (await end.post(id_, f"runs/{asked['id']}/cancel")).status_code == 200
    assert await end.delete_expired(KEPT) == 0
    end.clock.advance(KEPT)
    assert await end.delete_expired(KEPT) > 0
    assert files_in(tmp_path) < written


async def test_an_export_that_waits_for_an_operator_is_not_deleted(end):
    tenant = await active(end)
    id_ = tenant["id"]
    await end.post(id_, "export")
    await end.turn()
    await end.answer_self(id_, "tenant.export")
    await end.refuse_app(id_, "tenant.export", "disk-full")
    await end.turn()
    assert (await end.run(id_))["state"] == "needs_operator"

    end.clock.advance(2 * KEPT)
    assert await end.delete_expired(KEPT) == 0  # it may be tried again, and what is written then counts


async def test_what_no_run_knows_of_goes_by_its_age(end, tmp_path):
    name = f"{uuid4()}/{uuid4()}/app/000-pool.document.ndjson.gz"
    await obstore.put_async(end.store, name, b"x")
    (meta,) = [each async for page in obstore.list(end.store) for each in page if each["path"] == name]
    end.clock.advance(meta["last_modified"] + KEPT - timedelta(seconds=1) - START)
    assert await end.delete_expired(KEPT) == 0
    end.clock.advance(timedelta(seconds=1))
    assert await end.delete_expired(KEPT) == 1
    assert not list(tmp_path.glob("*-*"))  # and no empty folders stay


async def test_the_export_of_an_offboarding_is_done_before_the_offboarding_is(end):
    tenant = await active(end)
    id_ = tenant["id"]
    await end.post(id_, "offboard", {"grace_days": 60})
    await end.turn()
    await end.answer_app(id_, "tenant.export", tables=[], manifest="m")
    await end.answer_self(id_, "tenant.export")
    await end.turn()

    (shown,) = (await end.api.http.get(f"/v1/tenants/{id_}/exports")).json()["items"]
    assert (await end.run(id_))["state"] == "running"
    assert (shown["state"], shown["expires_at"]) == ("succeeded", "2026-01-31T00:00:00Z")


async def test_an_export_outlives_the_purge_and_the_certificate_says_until_when(end):
    tenant = await active(end)
    id_ = tenant["id"]
    await end.post(id_, "offboard", {"grace_days": 1, "export": True})
    await end.turn()
    await end.answer_app(id_, "tenant.export", tables=[], manifest="m")
    await end.answer_self(id_, "tenant.export")
    await end.turn()
    (shown,) = (await end.api.http.get(f"/v1/tenants/{id_}/exports")).json()["items"]
    end.clock.advance(timedelta(days=1))
    await end.api.sign_in()
    await end.turn()
    await end.purge(id_)

    assert (await end.get(id_))["status"] == "purged"
    certified = (await end.api.http.get(f"/v1/tenants/{id_}/purge-certificate")).json()["certificate"]
    (kept,) = certified["exports"]
    assert (kept["export_id"], kept["gone_after"]) == (shown["id"], "2026-01-31T00:00:00+00:00")
    file = shown["files"][0]
    where = f"/v1/tenants/{id_}/exports/{shown['id']}/files/{file['service']}/{file['file']}"
    assert (await end.api.http.get(where)).status_code == 200


async def test_exports_are_listed_by_one_statement(end):
    tenant = await active(end)
    id_ = tenant["id"]

    async def statements():
        with counted(end.api.runtime.transactions._databases.system.sync_engine) as sent:
            items = (await end.api.http.get(f"/v1/tenants/{id_}/exports")).json()["items"]
        return len(items), [each for each in sent if "saga_run" in each]

    made = [await exported(end, id_) for _ in range(3)]
    found, sent = await statements()
    assert (found, len(sent)) == (3, 1)
    listed = (await end.api.http.get(f"/v1/tenants/{id_}/exports", params={"limit": 2})).json()
    assert [each["id"] for each in listed["items"]] == [made[2]["id"], made[1]["id"]]
    rest = await end.api.http.get(f"/v1/tenants/{id_}/exports", params={"cursor": listed["next_cursor"]})
    assert rest.json()["items"] == [made[0]]


@contextmanager
def counted(engine):
    sent = []

    def note(_connection, _cursor, statement, *_):
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)
