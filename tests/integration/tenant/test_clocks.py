"""Test clocks over HTTP and as sagas."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import anyio

from tenant_service.audit import WORKER
from tenant_service.clocks.service import advance_clock, create_clock
from tenant_service.domain.saga import AckOutcome
from tenant_service.tenants.repository import add_tenants
from tenant_service.tenants.service import update_tenant
from tenantry.testing import eventually

FIRST = "2026-01-01T00:00:00Z"
SECOND = "2026-02-01T00:00:00Z"
# Of this database: other tests run at the same time on the same server.
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def new_clock(api):
    answer = await api.http.post("/v1/test-clocks", json={"now": FIRST})
    assert answer.status_code == 201
    return answer.json()["id"]


async def test_an_advance_moves_every_bound_tenant_and_waits_for_the_services(api, platform, make_ack):
    clock_id = await new_clock(api)
    bound = [await api.create(test_clock=clock_id) for _ in range(3)]
    free = await api.create()
    assert bound[0]["test_clock"] == {"id": clock_id, "now": FIRST}

    answer = await api.http.post(f"/v1/test-clocks/{clock_id}/advance", json={"to": SECOND})
    assert answer.status_code == 202
    assert (answer.json()["now"], answer.json()["status"], answer.json()["version"]) == (SECOND, "advancing", 2)
    for tenant in bound:
        document = (await platform.outbox("tenant.state.v1", tenant["id"]))[-1]
        assert (document["version"], document["payload"]["clock"]["now"]) == (2, SECOND)
    assert len(await platform.outbox("tenant.state.v1", free["id"])) == 1

    early = await api.http.post(f"/v1/test-clocks/{clock_id}/advance", json={"to": "2026-03-01T00:00:00Z"})
    assert (early.status_code, early.json()["type"]) == (409, "clock-advancing")

    await platform.turns()
    (request,) = await platform.requests(UUID(clock_id))
    assert (request["kind"], request["services"], request["tenant_id"]) == ("clock.advance", ["app", "billing"], None)
    assert (request["data"]["clock_id"], request["data"]["to"]) == (clock_id, "2026-02-01T00:00:00+00:00")
    await platform.answer(make_ack(request, "app"))
    await platform.turns()
    assert (await api.http.get(f"/v1/test-clocks/{clock_id}")).json()["status"] == "advancing"
    await platform.answer(make_ack(request, "billing"))
    await platform.turns()
    assert (await api.http.get(f"/v1/test-clocks/{clock_id}")).json()["status"] == "ready"


async def test_a_clock_never_goes_back(api):
    clock_id = await new_clock(api)
    back = await api.http.post(f"/v1/test-clocks/{clock_id}/advance", json={"to": "2025-12-31T23:59:59Z"})
    assert (back.status_code, back.json()["type"]) == (422, "clock-backwards")
    same = await api.http.post(f"/v1/test-clocks/{clock_id}/advance", json={"to": FIRST})
    assert (same.status_code, same.json()["status"], same.json()["version"]) == (202, "ready", 1)
    naive = await api.http.post(f"/v1/test-clocks/{clock_id}/advance", json={"to": "2026-02-01T00:00:00"})
    assert naive.status_code == 422


async def test_a_service_that_cannot_catch_up_is_tried_again(api, platform, make_ack):
    clock_id = await new_clock(api)
    await api.http.post(f"/v1/test-clocks/{clock_id}/advance", json={"to": SECOND})
    await platform.turns()
    (request,) = await platform.requests(UUID(clock_id))
    await platform.answer(
        make_ack(request, "app"), make_ack(request, "billing", AckOutcome.FAILED, error_code="no-cut", detail="later")
    )
    await platform.turns()
    path = f"/v1/test-clocks/{clock_id}/runs"
    (run,) = (await api.http.get(path)).json()["items"]
    assert run["state"] == "needs_operator"
    assert run["steps"][0]["error"] == {"code": "no-cut", "detail": "billing: later"}
    assert (await api.http.post(f"{path}/{run['id']}/retry")).status_code == 200
    await platform.turns()
    _, again = await platform.requests(UUID(clock_id))
    assert again["services"] == ["billing"]
    await platform.answer(make_ack(again, "billing"))
    await platform.turns()
    assert (await api.http.get(f"/v1/test-clocks/{clock_id}")).json()["status"] == "ready"


async def test_the_number_of_statements_does_not_grow_with_the_tenants(api, count_statements):
    counts = []
    for tenants in (1, 6):
        clock_id = await new_clock(api)
        for _ in range(tenants):
            await api.create(test_clock=clock_id)
        with count_statements() as statements:
            await api.http.post(f"/v1/test-clocks/{clock_id}/advance", json={"to": SECOND})
        counts.append(statements.count)
    assert counts[0] == counts[1]


async def test_a_tenant_that_is_created_during_an_advance_has_the_new_time(platform, monkeypatch):
    start, later = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    async with platform.transactions.begin() as session:
        clock = await create_clock(session, start, actor=WORKER, now=start)
    advanced = anyio.Event()

    async def advance():
        async with platform.transactions.begin() as session:
            await advance_clock(session, clock.id, later, actor=WORKER, now=start)
        advanced.set()

    async def waits_or_is_done():
        async with platform.database.connect() as connection:
            waiting = await connection.fetchval(WAITING)
        return waiting or advanced.is_set()

    async def add_during_an_advance(session, newcomers, *, now):
        # The moment between reading the clock and inserting the tenant.
        tasks.start_soon(advance)
        await eventually(waits_or_is_done)
        return await add_tenants(session, newcomers, now=now)

    monkeypatch.setattr("tenant_service.tenants.repository.add_tenants", add_during_an_advance)
    async with anyio.create_task_group() as tasks:
        tenant = await platform.create(test_clock_id=clock.id)
    documents = await platform.outbox("tenant.state.v1", str(tenant.id))
    assert documents[-1]["payload"]["clock"]["now"] == "2026-02-01T00:00:00Z"


async def test_a_document_that_waited_for_an_advance_has_the_new_time(platform):
    start, later = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    async with platform.transactions.begin() as session:
        clock = await create_clock(session, start, actor=WORKER, now=start)
    tenant = await platform.create(test_clock_id=clock.id)

    async def rename():
        async with platform.transactions.begin() as session:
            await update_tenant(
                session, str(tenant.id), {"name": "New"}, expected_version=None, actor=WORKER, now=start
            )

    async def waits():
        async with platform.database.connect() as connection:
            return await connection.fetchval(WAITING)

    async with anyio.create_task_group() as tasks, platform.transactions.begin() as session:
        await advance_clock(session, clock.id, later, actor=WORKER, now=start)
        tasks.start_soon(rename)
        await eventually(waits)
    last = (await platform.outbox("tenant.state.v1", str(tenant.id)))[-1]
    assert (last["version"], last["payload"]["name"]) == (3, "New")
    assert last["payload"]["clock"]["now"] == "2026-02-01T00:00:00Z"


async def test_unknown_clocks(api):
    unknown = str(uuid4())
    for method, path, body in [
        ("GET", "", None),
        ("POST", "/advance", {"to": SECOND}),
        ("GET", "/runs", None),
        ("POST", f"/runs/{unknown}/retry", None),
    ]:
        answer = await api.http.request(method, f"/v1/test-clocks/{unknown}{path}", json=body)
        assert (answer.status_code, answer.json()["type"]) == (404, "not-found")
    body = {"slug": "clockless", "name": "x", "tier": "standard", "admin_email": "a@x.example", "test_clock": unknown}
    assert (await api.http.post("/v1/tenants", json=body)).status_code == 404


async def test_clocks_exist_only_where_they_are_enabled(start_api):
    api = await start_api(test_clocks_enabled=False)
    await api.sign_in()
    assert (await api.http.post("/v1/test-clocks", json={"now": FIRST})).status_code == 404
    body = {"slug": "timeless", "name": "x", "tier": "standard", "admin_email": "a@x.example"}
    answer = await api.http.post("/v1/tenants", json={**body, "test_clock": str(uuid4())})
    assert answer.status_code == 422


async def test_tiers_are_versioned(api, platform):
    path = "/v1/tiers/silver"
    body = {"limits": {"concurrency": 3}, "max_event_age_seconds": None, "isolation": "schema"}
    first = await api.http.put(path, json=body)
    assert (first.status_code, first.json()["version"], first.headers["etag"]) == (201, 1, '"1"')
    same = await api.http.put(path, json=body)
    assert (same.status_code, same.json()["version"]) == (200, 1)
    second = await api.http.put(path, json=body | {"limits": {"concurrency": 4}}, headers={"If-Match": '"1"'})
    assert (second.status_code, second.json()["version"]) == (200, 2)
    stale = await api.http.put(path, json=body, headers={"If-Match": '"1"'})
    assert stale.status_code == 412
    versions = (await api.http.get(f"{path}/versions")).json()["items"]
    assert [(tier["version"], tier["limits"]) for tier in versions] == [
        (2, {"concurrency": 4}),
        (1, {"concurrency": 3}),
    ]
    published = await platform.outbox("platform.state.v1", "tier/silver")
    assert [row["payload"]["version"] for row in published] == [1, 2]
    assert [row["type"] for row in await platform.outbox("platform.state.v1", "tier/standard")]
    tenant = await api.create(tier="silver")
    await api.activate(tenant["id"])
    placed = (await api.http.get(f"/v1/tenants/{tenant['id']}")).json()
    assert placed["placement"]["isolation"] == "schema"
    assert (await api.http.put(path, json={"odd": 1})).status_code == 422
    assert (await api.http.get("/v1/tiers/none")).status_code == 404
    names = [tier["name"] for tier in (await api.http.get("/v1/tiers")).json()["items"]]
    assert names == sorted(names)
