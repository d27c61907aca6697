"""The end of a tenant: export, grace, purge and its certificate. Product services are played by the test."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from tests.integration.tenant.ending import active, problem, start_end

from tenant_service.audit import PLATFORM_CHAIN
from tenant_service.audit.service import verify
from tenant_service.domain.certificates import certificate_digest
from tenant_service.domain.saga import RunKind, RunState, StepName
from tenantry.offboarding._worker import RETRY_AFTER

GRACE = timedelta(days=30)


@pytest.fixture
async def end(start_api, platform, tmp_path):
    return await start_end(start_api, platform, tmp_path)


async def test_a_tenant_ends_with_a_certificate(end):
    tenant = await active(end, external_id=f"org-{uuid4().hex}")
    id_ = tenant["id"]
    key = (await end.post(id_, "api-keys", {"name": "k", "scopes": ["tenant:read"]})).json()
    async with end.platform.database.connect() as connection:
        await connection.execute("INSERT INTO system.config_key VALUES ($1, '\\x00', '\\x00', now())", UUID(id_))
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
    assert document["keys_destroyed"] == ["data key of the tenant's secrets"]
    async with end.platform.database.connect() as connection:
        wrapped = await connection.fetchval("SELECT wrapped_key FROM system.config_key WHERE owner_id = $1", UUID(id_))
    assert wrapped is None
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
    problem(await end.post(id_, "cancel-offboarding"), 409, "tenant-gone")
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
    second = (await end.post(id_, "offboard", {"grace_days": 30})).json()
    assert first == second
    said = problem(await end.post(id_, "offboard", {"grace_days": 0}), 409, "offboarding-running")
    assert first["grace_ends_at"][:10] in said["detail"]
    assert (await end.get(id_))["grace_ends_at"] == first["grace_ends_at"]
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
    await end.refuse_app(id_, "tenant.purge", "unpurgeable-table")
    await end.turn()

    run = await end.run(id_)
    assert run["state"] == RunState.NEEDS_OPERATOR
    assert (await end.get(id_))["status"] == "purging"
    assert (await end.post(id_, "purge")).status_code == 202
    await end.turn()
    assert len(await end.requests(id_, "tenant.purge")) == 2
    await end.purge(id_)
    assert (await end.get(id_))["status"] == "purged"


async def test_people_who_are_in_no_other_tenant_are_forgotten(end):
    mine, other = await active(end), await active(end)
    emails = [f"{uuid4().hex}@example.org" for _ in range(2)]
    for id_, email in ((mine["id"], emails[0]), (mine["id"], emails[1]), (other["id"], emails[1])):
        invited = (await end.post(id_, "invitations", {"email": email, "roles": ["member"]})).json()
        assert (await end.api.http.post("/v1/sessions", json={"code": invited["code"]})).status_code == 201
    await end.post(mine["id"], "offboard", {"grace_days": 0, "export": False})
    await end.turn()
    await end.purge(mine["id"])

    async with end.platform.database.connect() as connection:
        left = await connection.fetch("SELECT email FROM system.person WHERE email = ANY ($1)", emails)
    assert [row["email"] for row in left] == [emails[1]]


async def test_a_slug_of_the_purged_is_for_nobody_else(end):
    tenant = await active(end)
    await end.post(tenant["id"], "offboard", {"grace_days": 0, "export": False})
    await end.turn()
    await end.purge(tenant["id"])
    again = {"slug": tenant["slug"], "name": "n", "tier": "standard", "admin_email": "a@example.org"}
    assert (await end.api.http.post("/v1/tenants", json=again)).status_code == 409


async def test_a_purge_that_breaks_in_a_service_is_seen_in_the_run(end):
    tenant, other = await active(end), await active(end)
    async with end.platform.database.connect() as connection:
        await connection.execute(
            f"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'no'; END $$;
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


async def test_a_tenant_may_not_end_itself_or_another(end):
    mine = await active(end)
    secret = (await end.post(mine["id"], "api-keys", {"name": "a", "scopes": ["tenant:admin"]})).json()["key"]
    for what in ("offboard", "cancel-offboarding", "purge"):
        answer = await end.api.http.post(
            f"/v1/tenants/{mine['id']}/{what}", json={}, headers={"Authorization": f"Bearer {secret}"}
        )
        assert answer.status_code == 403


async def test_what_a_restored_backup_brings_back_is_deleted_again(end):
    tenant, other = await active(end), await active(end)
    for each in (tenant, other):
        await end.post(each["id"], "offboard", {"grace_days": 0, "export": False})
        await end.turn()
        await end.purge(each["id"])
    certificate = (await end.api.http.get(f"/v1/tenants/{tenant['id']}/purge-certificate")).json()
    await bring_back(end, tenant["id"])

    asked = await end.post(tenant["id"], "purge-again")
    assert asked.status_code == 202
    again = await end.post(tenant["id"], "purge-again")
    assert again.json()["id"] == asked.json()["id"]  # it is at it
    await end.purge(tenant["id"])

    run = await end.run(tenant["id"], RunKind.PURGE)
    assert (run["id"], run["state"]) == (asked.json()["id"], "succeeded")
    assert await invitations(end, tenant["id"]) == 0
    assert (await end.get(tenant["id"]))["status"] == "purged"
    assert (await end.api.http.get(f"/v1/tenants/{tenant['id']}/purge-certificate")).json() == certificate
    params = {"action": "tenant.purged_again", "target": tenant["id"]}
    (entry,) = (await end.api.http.get("/v1/audit", params=params)).json()["items"]
    assert entry["detail"]["rows_deleted"] == {"app": 7, "tenant": 1}
    assert len(await end.requests(other["id"], "tenant.purge")) == 1


async def test_everything_that_was_purged_since_a_backup_is_deleted_again(end):
    tenants = []
    for _ in range(3):
        tenants.append(await active(end))
        await end.post(tenants[-1]["id"], "offboard", {"grace_days": 0, "export": False})
        await end.turn()
        await end.purge(tenants[-1]["id"])
        end.clock.advance(timedelta(minutes=1))
    first, *later = [each["id"] for each in tenants]
    since = (await end.api.http.get(f"/v1/tenants/{later[0]}/purge-certificate")).json()["certificate"]["ended_at"]
    for id_ in later:
        await bring_back(end, id_)

    asked = await end.api.http.post("/v1/purges", json={"purged_since": since})
    assert asked.status_code == 202
    assert asked.json()["tenants"] >= len(later)  # other tests have theirs in the same database
    repeated = await end.api.http.post("/v1/purges", json={"purged_since": since})
    assert repeated.json() == asked.json()
    for id_ in later:
        await end.purge(id_)
        assert await invitations(end, id_) == 0
        kinds = [run["kind"] for run in (await end.api.http.get(f"/v1/tenants/{id_}/runs")).json()["items"]]
        assert kinds.count("purge") == 1
    assert len(await end.requests(first, "tenant.purge")) == 1


async def test_only_a_purged_tenant_is_purged_again_and_only_by_an_operator(end):
    tenant = await active(end)
    problem(await end.post(tenant["id"], "purge-again"), 409, "not-purged")
    secret = (await end.post(tenant["id"], "api-keys", {"name": "a", "scopes": ["tenant:admin"]})).json()["key"]
    as_admin = {"Authorization": f"Bearer {secret}"}
    for path, body in (
        (f"/v1/tenants/{tenant['id']}/purge-again", {}),
        ("/v1/purges", {"purged_since": "2026-01-01T00:00:00Z"}),
    ):
        assert (await end.api.http.post(path, json=body, headers=as_admin)).status_code == 403
    assert (await end.api.http.post("/v1/purges", json={"purged_since": "yesterday"})).status_code == 422
    assert (await end.get(tenant["id"]))["status"] == "active"


async def bring_back(end, tenant_id):
    """A row of the tenant, as a backup has it."""
    async with end.platform.database.connect() as connection:
        await connection.execute(
            "INSERT INTO system.invitation (id, tenant_id, email, roles, delivery, invited_by, created_at, expires_at)"
            " SELECT gen_random_uuid(), $1, 'a@example.org', '{viewer}', 'caller', 'x', now(), now()",
            UUID(tenant_id),
        )


async def invitations(end, tenant_id):
    async with end.platform.database.connect() as connection:
        return await connection.fetchval("SELECT count(*) FROM system.invitation WHERE tenant_id = $1", UUID(tenant_id))
