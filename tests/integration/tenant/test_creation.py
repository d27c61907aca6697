"""New tenants: one statement for each kind of thing that is written, and a bad one in a list stops no other."""

from datetime import timedelta
from typing import Any

from tenant_service.audit import Actor
from tenant_service.audit.service import verify
from tenant_service.tenants.creation import NewTenant, create_tenants
from tenantry import Tenant, uuid7
from tenantry.testing import eventually

OPERATOR = Actor(subject="operator", kind="operator", credential_id="test")
# What is known of tier, stores and names; tenants, runs and invitations; outbox; trail; notification.
STATEMENTS = 5


def wanted(number, **changes):
    slug = f"new-{uuid7().hex[-12:]}-{number}"
    return NewTenant(**{"slug": slug, "name": "New", "tier": "standard", "admin_email": "a@example.org", **changes})


async def create(platform, new, **changes):
    async with platform.transactions.begin() as session:
        return await create_tenants(session, new, actor=OPERATOR, now=platform.clock.now(), **changes)


async def test_a_creation_is_five_statements(api, count_statements):
    body = {"slug": f"five-{uuid7().hex}", "name": "Five", "tier": "standard", "admin_email": "a@example.org"}
    with count_statements() as alone:
        assert (await api.http.post("/v1/tenants", json=body)).status_code == 202
    assert alone.count == STATEMENTS
    body["slug"] = f"key-{uuid7().hex}"
    with count_statements() as repeatable:
        assert (await api.http.post("/v1/tenants", json=body, headers={"Idempotency-Key": "k"})).status_code == 202
    assert repeatable.count == STATEMENTS + 2  # the key is claimed, and the answer stored


async def test_a_batch_is_as_many_statements_as_one_tenant_and_may_be_repeated(api, count_statements):
    taken = await api.create()
    tenants = [
        {"slug": slug, "name": "Many", "tier": "standard", "admin_email": "a@example.org"}
        for slug in (f"many-{uuid7().hex[-12:]}", taken["slug"], f"many-{uuid7().hex[-12:]}")
    ]
    path, key = "/v1/tenants/batch", {"Idempotency-Key": uuid7().hex}
    with count_statements() as together:
        answer = await api.http.post(path, json={"tenants": tenants}, headers=key)
    assert answer.status_code == 202, answer.text
    assert together.count == STATEMENTS + 3  # the key, and which of the names is taken
    made = answer.json()
    assert (made["created"], made["refused"]) == (2, 1)
    assert [item["error"] and item["error"]["type"] for item in made["items"]] == [None, "slug-taken", None]
    assert [item["tenant"] and item["tenant"]["slug"] for item in made["items"]] == [
        tenants[0]["slug"], None, tenants[2]["slug"],
    ]  # fmt: skip
    again = await api.http.post(path, json={"tenants": tenants}, headers=key)
    assert (again.headers["idempotency-replayed"], again.json()) == ("true", made)
    await api.activate(made["items"][0]["tenant"]["id"])
    for item in (made["items"][0], made["items"][2]):
        shown = (await api.http.get(f"/v1/tenants/{item['tenant']['id']}")).json()
        assert shown["status"] == "active"


async def test_a_batch_of_the_wrong_shape_makes_nothing(api):
    good = {"slug": f"good-{uuid7().hex}", "name": "Good", "tier": "standard", "admin_email": "a@example.org"}
    wrong: list[list[dict[str, Any]]] = [
        [],
        [good, good | {"slug": "Not A Slug"}],
        [good | {"config": {}}],
        [good] * 501,
    ]
    for tenants in wrong:
        answer = await api.http.post("/v1/tenants/batch", json={"tenants": tenants})
        assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")
    assert not (await api.http.get("/v1/tenants", params={"q": good["slug"]})).json()["items"]


async def test_a_batch_is_for_operators(api):
    api.http.headers["Authorization"] = f"Bearer {await api.token('app')}"
    answer = await api.http.post("/v1/tenants/batch", json={"tenants": []})
    assert answer.status_code == 403


async def test_what_is_told_is_what_is_stored(platform):
    invite_for = timedelta(days=7)
    (tenant,) = await create(
        platform,
        [wanted(1, external_id=f"org-{uuid7()}", region="eu-1", plan="pro", metadata={"seats": 3, "vat": None})],
        invite_for=invite_for,
    )
    assert await platform.get(tenant.id) == tenant
    (state,) = await platform.outbox("tenant.state.v1", str(tenant.id))
    assert (state["version"], state["payload"]["status"], state["payload"]["metadata"]) == (
        1, "requested", {"seats": 3, "vat": None},
    )  # fmt: skip
    told = await platform.outbox("tenant.events.v1", str(tenant.id))
    assert [line["type"] for line in told] == ["tenant.created.v1", "tenant.user_invited.v1"]
    assert told[0]["payload"]["plan"] == "pro"
    async with platform.database.connect() as connection:
        invited = await connection.fetchrow("SELECT * FROM system.invitation WHERE tenant_id = $1", tenant.id)
    assert (invited["email"], invited["roles"], invited["delivery"]) == ("a@example.org", ["owner"], "mailer")
    assert invited["expires_at"] - invited["created_at"] == invite_for
    assert str(invited["id"]) == told[1]["payload"]["invitation_id"]
    (run,) = await platform.runs(tenant.id)
    assert [(step.position, step.name, step.state) for step in run.steps] == [
        (0, "place", "pending"),
        (1, "request_services", "queued"),
        (2, "activate", "queued"),
    ]
    assert len({step.idempotency_key for step in run.steps}) == 3


async def test_the_trail_of_a_new_tenant_goes_on_as_every_other(platform):
    (tenant,) = await create(platform, [wanted(1)], invite_for=timedelta(days=7))
    await platform.turns()
    assert await platform.audit(tenant.id) == ["tenant.create", "invitation.create", "tenant.provision"]
    async with platform.transactions.begin() as session:
        verification = await verify(session, tenant.id)
    assert (verification.entries, verification.broken) == (3, ())


async def test_a_bad_one_in_a_list_stops_no_other(platform):
    external_id = f"org-{uuid7()}"
    (there,) = await create(platform, [wanted(0, external_id=external_id)])
    first, last = wanted(1), wanted(9)
    outcomes = await create(
        platform,
        [
            first,
            wanted(2, slug=there.slug),
            wanted(3, slug=first.slug),
            wanted(4, external_id=external_id),
            wanted(5, tier="no-such-tier"),
            wanted(6, region="mars"),
            wanted(7, test_clock_id=uuid7()),
            last,
        ],
    )
    kinds = ["tenant" if isinstance(outcome, Tenant) else outcome.type for outcome in outcomes]
    assert kinds == [
        "tenant", "slug-taken", "slug-taken", "external-id-taken", "unknown-tier", "no-store", "not-found", "tenant",
    ]  # fmt: skip
    for outcome, new in ((outcomes[0], first), (outcomes[-1], last)):
        assert outcome.slug == new.slug
        assert await platform.audit(outcome.id) == ["tenant.create"]
    made = {outcome.id for outcome in outcomes if isinstance(outcome, Tenant)}
    async with platform.database.connect() as connection:
        for table, column in (("tenant", "id"), ("saga_run", "tenant_id"), ("outbox", "tenant_id")):
            later = f"SELECT DISTINCT {column} FROM system.{table} WHERE {column} > $1"
            assert {row[0] for row in await connection.fetch(later, there.id)} == made


async def test_a_process_does_not_read_again_what_it_has_written(start_api, monkeypatch):
    one, other = await start_api(), await start_api()
    heard = []
    reload = one.runtime.state._reload

    async def noting(session, keys):
        heard.extend(keys)
        await reload(session, keys)

    monkeypatch.setattr(one.runtime.state, "_reload", noting)
    await one.sign_in()
    await other.sign_in()
    own = [(await one.create())["id"] for _ in range(20)]
    foreign = (await other.create())["id"]
    await eventually(lambda: one.runtime.state.directory.resolve(foreign))
    assert f"tenant:{foreign}:1" in heard
    await other.http.patch(f"/v1/tenants/{own[0]}", json={"name": "Renamed elsewhere"})
    await eventually(lambda: one.runtime.state.directory.resolve(own[0]).name == "Renamed elsewhere")
    # A notification may come before the answer to the commit that it is about, now and then.
    assert len([key for key in heard if key.split(":")[1] in own and key.endswith(":1")]) < len(own) / 2
