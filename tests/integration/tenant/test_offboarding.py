"""The end of a tenant: export, grace, purge and its certificate. Product services are played by the test."""

import gzip
import hashlib
import json
import re
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from obstore.store import LocalStore
from secret_watch import watched
from tests.integration.tenant.conftest import START, ack

from tenant_service.audit import PLATFORM_CHAIN
from tenant_service.audit.service import verify
from tenant_service.catalogue import CATALOGUE
from tenant_service.domain.certificates import certificate_digest
from tenant_service.domain.saga import AckOutcome, RunKind, RunState, StepName
from tenant_service.runs.engine import take_turns
from tenant_service.runs.repository import Ack
from tenant_service.runs.work import WORK
from tenantry import ManualClock
from tenantry.events import LATER, Request
from tenantry.identity import SESSION_COOKIE
from tenantry.offboarding import OffboardingWorker, offboarding_handlers
from tenantry.offboarding._worker import RETRY_AFTER

GRACE = timedelta(days=30)


def problem(answer, status, type_):
    assert (answer.status_code, answer.json()["type"]) == (status, type_), answer.text
    return answer.json()


class End:
    """The API, a clock and the saga's turns; `app` answers as a service of its own would."""

    def __init__(self, api, platform, clock, store):
        self.api, self.platform, self.clock, self.store = api, platform, clock, store
        self.settings = api.runtime.settings.saga()
        self._answered = set()

    async def turn(self):
        while True:
            async with self.api.runtime.transactions.begin() as session:
                if not await take_turns(session, WORK, self.settings, self.clock.now()):
                    return

    async def requests(self, tenant_id, kind):
        return [each for each in await self.platform.requests(UUID(tenant_id)) if each["kind"] == kind]

    async def answer_app(self, tenant_id, kind, **result):
        for request in await self.requests(tenant_id, kind):
            if (request["request_id"], "app") not in self._answered:
                self._answered.add((request["request_id"], "app"))
                given = ack(request, "app")
                await self.platform.answer(type(given)(**{**vars_of(given), "result": result}))

    async def answer_self(self, tenant_id, kind):
        """The tenant service answers itself, by its own handlers and worker; returns what it said."""
        said = []
        async with self.platform.database.databases() as databases:
            handlers = offboarding_handlers(databases, CATALOGUE, self.clock, exports=self.store is not None)
            worker = OffboardingWorker(databases, CATALOGUE, self.clock, store=self.store, batch_rows=2)
            for request in await self.requests(tenant_id, kind):
                if (request["request_id"], "tenant") in self._answered:
                    continue
                self._answered.add((request["request_id"], "tenant"))
                wanted = Request(
                    request_id=UUID(request["request_id"]),
                    kind=kind,
                    services=tuple(request["services"]),
                    tenant_id=UUID(tenant_id),
                    data=request["data"],
                )
                result = await handlers[kind](wanted)
                told = [] if result is LATER else [{"outcome": "done", "retryable": False, "result": result}]
                while not told:
                    assert await worker.turn()
                    told = await self.told(tenant_id, request)
                said += told
                fields = {name: told[0].get(name) for name in ("error_code", "detail", "retryable", "result")}
                outcome = AckOutcome(told[0]["outcome"])
                await self.platform.answer(Ack(wanted.request_id, "tenant", outcome, **fields))
        return said

    async def told(self, tenant_id, request):
        """The answers to a request that are in the outbox."""
        acks = [row["payload"] for row in await self.platform.outbox("tenant.acks.v1", tenant_id)]
        return [each for each in acks if each["request_id"] == request["request_id"]]

    async def run(self, tenant_id):
        items = (await self.api.http.get(f"/v1/tenants/{tenant_id}/runs")).json()["items"]
        return next(item for item in items if item["kind"] in {RunKind.OFFBOARD, RunKind.EXPORT})

    async def get(self, tenant_id):
        return (await self.api.http.get(f"/v1/tenants/{tenant_id}")).json()

    async def post(self, tenant_id, what, body=None):
        return await self.api.http.post(f"/v1/tenants/{tenant_id}/{what}", json=body)

    async def purge(self, tenant_id):
        """From the end of the grace to the certificate."""
        await self.turn()
        self.clock.advance(timedelta(seconds=6))
        await self.turn()
        await self.answer_app(
            tenant_id,
            "tenant.purge",
            catalogue_digest="d" * 64,
            tables=[{"table": "pool.document", "retention": "erase", "rows_before": 7, "rows_after": 0}],
            exceptions=[],
        )
        await self.answer_self(tenant_id, "tenant.purge")
        await self.turn()


def vars_of(value):
    return {name: getattr(value, name) for name in value.__slots__}


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


@pytest.fixture
async def end(start_api, platform, store, tmp_path):
    clock = ManualClock(START)
    api = await start_api(clock, offboarding_services=["app"], export_url=tmp_path.as_uri())
    await api.sign_in()
    return End(api, platform, clock, store)


async def active(end, **wanted):
    tenant = await end.api.create(**wanted)
    await end.turn()
    assert (await end.get(tenant["id"]))["status"] == "active"
    return tenant


async def test_a_tenant_ends_with_a_certificate(end):
    tenant = await active(end, external_id=f"org-{uuid4().hex}")
    id_ = tenant["id"]
    key = (await end.post(id_, "api-keys", {"name": "k", "scopes": ["tenant:read"]})).json()
    began = await end.post(id_, "offboard", {"grace_days": 30, "note": "contract ended"})

    assert began.status_code == 202
    assert began.json()["status"] == "offboarding"
    await end.turn()
    await end.answer_app(id_, "tenant.export", tables=[], manifest="m")
    await end.answer_self(id_, "tenant.export")
    await end.turn()
    assert [(step["name"], step["state"]) for step in (await end.run(id_))["steps"]][:2] == [
        ("export_data", "succeeded"),
        ("await_grace", "waiting"),
    ]
    problem(await end.post(id_, "purge"), 409, "grace-running")
    assert (await end.api.http.get(f"/v1/tenants/{id_}/purge-certificate")).status_code == 404
    end.clock.advance(GRACE)
    await end.api.sign_in()
    await end.turn()
    assert (await end.get(id_))["status"] == "purging"
    await end.purge(id_)

    gone = await end.get(id_)
    assert (gone["status"], gone["name"], gone["external_id"], gone["metadata"]) == ("purged", "(purged)", None, {})
    answer = (await end.api.http.get(f"/v1/tenants/{id_}/purge-certificate")).json()
    document = answer["certificate"]
    assert answer["digest"] == certificate_digest(document)
    assert document["services"]["app"]["tables"][0]["rows_before"] == 7
    own = {table["table"]: table for table in document["services"]["tenant"]["tables"]}
    assert own["system.api_key"] == {
        "table": "system.api_key",
        "retention": "erase",
        "rows_before": 1,
        "rows_after": 0,
    }
    assert own["system.invitation"]["rows_after"] == 0
    kept = {each["table"]: each["reason"] for each in document["exceptions"]}
    assert kept["system.audit_entry"] == "statute"
    assert document["requested_by"] == "operator"
    states = await end.platform.outbox("tenant.state.v1", id_)
    assert states[-1]["payload"] is None
    assert states[-2]["payload"]["status"] == "purged"
    assert tenant["slug"] == states[-2]["payload"]["slug"]
    credentials = await end.platform.outbox("tenant.credentials.v1", key["id"])
    assert credentials[-1]["payload"] is None
    assert "purge_certified" in (await end.platform.audit(PLATFORM_CHAIN))[-1]
    entries = (await end.api.http.get("/v1/audit", params={"action": "tenant.purge_certified"})).json()["items"]
    assert entries[0]["detail"]["certificate"] == answer["digest"]
    async with end.api.runtime.transactions.begin() as session:
        assert (await verify(session, UUID(id_))).broken == ()
    assert (await end.run(id_))["state"] == "succeeded"


async def test_it_is_taken_back_inside_the_grace_and_nothing_is_lost(end):
    tenant = await active(end)
    id_ = tenant["id"]
    await end.post(id_, "suspend", {"reason": "billing", "note": ""})
    await end.post(id_, "offboard", {"grace_days": 1})
    await end.turn()

    back = await end.post(id_, "cancel-offboarding")

    assert back.status_code == 200, back.text
    assert (back.json()["status"], back.json()["suspension_reasons"]) == ("suspended", ["billing"])
    assert (await end.run(id_))["state"] == "cancelled"
    end.clock.advance(timedelta(days=2))
    await end.turn()
    await end.api.sign_in()
    assert (await end.get(id_))["status"] == "suspended"
    problem(await end.post(id_, "cancel-offboarding"), 409, "not-offboarding")
    problem(await end.post(id_, "purge"), 409, "not-offboarding")


async def test_after_the_grace_there_is_no_way_back(end):
    tenant = await active(end)
    id_ = tenant["id"]
    await end.post(id_, "offboard", {"grace_days": 0, "export": False})
    problem(await end.post(id_, "cancel-offboarding"), 409, "grace-over")
    await end.turn()
    assert (await end.get(id_))["status"] == "purging"
    problem(await end.post(id_, "cancel-offboarding"), 409, "not-offboarding")
    run = await end.run(id_)
    assert (await end.post(id_, f"runs/{run['id']}/cancel")).status_code == 409


async def test_a_legal_hold_blocks_the_purge_and_nothing_else(end):
    tenant = await active(end)
    id_ = tenant["id"]
    await end.post(id_, "legal-hold", {"on": True, "reason": "case 7"})
    await end.post(id_, "offboard", {"grace_days": 0, "export": False})
    await end.turn()

    waiting = next(step for step in (await end.run(id_))["steps"] if step["name"] == StepName.BEGIN_PURGE)
    assert (waiting["state"], waiting["error"]["code"]) == ("waiting", "legal-hold")
    problem(await end.post(id_, "purge"), 409, "legal-hold")
    assert (await end.get(id_))["status"] == "offboarding"
    await end.post(id_, "legal-hold", {"on": False, "reason": "case closed"})
    assert (await end.post(id_, "purge")).status_code == 202
    await end.turn()
    assert (await end.get(id_))["status"] == "purging"


async def test_repeating_an_order_changes_nothing(end):
    tenant = await active(end)
    id_ = tenant["id"]
    first = (await end.post(id_, "offboard", {"grace_days": 30})).json()
    second = (await end.post(id_, "offboard", {"grace_days": 1})).json()
    assert first == second
    runs = (await end.api.http.get(f"/v1/tenants/{id_}/runs")).json()["items"]
    assert [run["kind"] for run in runs].count("offboard") == 1


@pytest.mark.parametrize(
    "body", [{"grace_days": -1}, {"grace_days": 1e9}, {"grace_days": "x"}, {"grace": 1}, {"note": "\x00"}, []]
)
async def test_an_order_that_cannot_be_read_is_refused(end, body):
    tenant = await active(end)
    answer = await end.post(tenant["id"], "offboard", body)
    assert answer.status_code == 422
    assert (await end.get(tenant["id"]))["status"] == "active"


async def test_a_purge_that_a_service_cannot_do_waits_for_an_operator(end):
    tenant = await active(end)
    id_ = tenant["id"]
    await end.post(id_, "offboard", {"grace_days": 0, "export": False})
    await end.turn()
    end.clock.advance(timedelta(seconds=6))
    await end.turn()
    (request,) = await end.requests(id_, "tenant.purge")
    refusal = ack(request, "app")
    fields = {**vars_of(refusal), "outcome": type(refusal.outcome)("failed"), "error_code": "unpurgeable-table"}
    await end.platform.answer(type(refusal)(**fields))
    await end.turn()

    run = await end.run(id_)
    assert run["state"] == RunState.NEEDS_OPERATOR
    assert (await end.get(id_))["status"] == "purging"
    assert (await end.post(id_, "purge")).status_code == 202
    await end.turn()
    assert len(await end.requests(id_, "tenant.purge")) == 2
    await end.purge(id_)
    assert (await end.get(id_))["status"] == "purged"


async def test_a_slug_of_the_purged_is_for_nobody_else(end):
    tenant = await active(end)
    await end.post(tenant["id"], "offboard", {"grace_days": 0, "export": False})
    await end.turn()
    await end.purge(tenant["id"])
    again = {"slug": tenant["slug"], "name": "n", "tier": "standard", "admin_email": "a@example.org"}
    assert (await end.api.http.post("/v1/tenants", json=again)).status_code == 409


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
    await end.post(id_, "export")
    await end.turn()
    await end.answer_self(id_, "tenant.export")

    files = [gzip.decompress(path.read_bytes()) for path in tmp_path.rglob("*.ndjson.gz")]
    everything = b"".join(files).decode()
    assert signed_in.json()["subject"] in everything  # who is a member, but not by what they sign in
    for secret in secrets:
        assert secret not in everything
        assert hashlib.sha256(secret.encode()).hexdigest() not in everything
    columns = {name for file in files for line in file.splitlines() for name in json.loads(line)}
    suspect = {name for name in columns if re.search("secret|hash|token|code|password|wrapped|private|sha256", name)}
    assert suspect == {"content_hash", "hash"}  # of the audit trail's entries


async def test_a_purge_that_breaks_in_a_service_is_seen_in_the_run(end):
    tenant, other = await active(end), await active(end)
    async with end.platform.database.connect() as connection:
        await connection.execute(
            f"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'no: %', old; END $$;
            CREATE TRIGGER refuse BEFORE DELETE ON system.api_key
                FOR EACH ROW WHEN (old.tenant_id = '{tenant["id"]}') EXECUTE FUNCTION refuse();
            """
        )
    await end.post(tenant["id"], "api-keys", {"name": "a", "scopes": ["tenant:read"]})
    for each in (tenant, other):
        await end.post(each["id"], "offboard", {"grace_days": 0, "export": False})
    await end.turn()
    end.clock.advance(timedelta(seconds=6))
    await end.turn()
    (failed,) = await end.answer_self(tenant["id"], "tenant.purge")
    assert (failed["outcome"], failed["retryable"]) == ("failed", True)
    await end.purge(other["id"])
    assert (await end.get(other["id"]))["status"] == "purged"

    await end.turn()
    step = next(step for step in (await end.run(tenant["id"]))["steps"] if step["name"] == "purge_services")
    assert (step["error"]["code"], step["error"]["detail"]) == ("internal-error", "tenant: DBAPIError")

    async with end.platform.database.connect() as connection:
        await connection.execute("DROP TRIGGER refuse ON system.api_key; DROP FUNCTION refuse()")
    end.clock.advance(RETRY_AFTER)
    await end.purge(tenant["id"])
    assert (await end.get(tenant["id"]))["status"] == "purged"


async def test_without_a_store_there_are_no_exports(start_api):
    api = await start_api()
    await api.sign_in()
    tenant = await api.create()
    await api.activate(tenant["id"])
    problem(await api.http.post(f"/v1/tenants/{tenant['id']}/export"), 409, "export-not-configured")
    body = {"grace_days": 1, "export": True}
    problem(await api.http.post(f"/v1/tenants/{tenant['id']}/offboard", json=body), 409, "export-not-configured")
    assert (await api.http.post(f"/v1/tenants/{tenant['id']}/offboard", json={"grace_days": 1})).status_code == 202


async def test_a_tenant_may_not_end_itself_or_another(end):
    mine = await active(end)
    secret = (await end.post(mine["id"], "api-keys", {"name": "a", "scopes": ["tenant:admin"]})).json()["key"]
    for what in ("offboard", "cancel-offboarding", "purge"):
        answer = await end.api.http.post(
            f"/v1/tenants/{mine['id']}/{what}", json={}, headers={"Authorization": f"Bearer {secret}"}
        )
        assert answer.status_code == 403
