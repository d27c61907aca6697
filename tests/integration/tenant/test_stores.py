"""Stores over HTTP, and what placement makes of them: residency, capacity under a race, draining."""

import asyncio
from itertools import count

import pytest

from tenant_service.domain.placement import NoStore
from tenant_service.models import TenantRow
from tenant_service.runs.service import cancel_run
from tenant_service.stores.repository import find_store
from tenant_service.stores.schemas import StoreCreate, StoreUpdate
from tenant_service.stores.service import create_store, ensure_default_store, occupy_stores, update_store
from tenant_service.transactions import Transactions
from tenantry import Isolation, TenantStatus

from .conftest import OPERATOR, START

_regions = count()


async def problem(answer, status, kind):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["type"] == kind
    return answer.json()


@pytest.fixture
def region():
    """A region that no other test has stores in."""
    return f"region-{next(_regions)}"


async def add_store(platform, name, region, **wanted):
    async with platform.transactions.begin() as session:
        await create_store(session, StoreCreate(name=name, region=region, **wanted), actor=OPERATOR, now=START)


async def change_store(platform, name, **changes):
    async with platform.transactions.begin() as session:
        wanted = StoreUpdate(**changes).model_dump(mode="json", exclude_unset=True)
        await update_store(session, name, wanted, expected_version=None, actor=OPERATOR, now=START)


async def tenants_in(platform, name):
    async with platform.transactions.begin() as session:
        return (await find_store(session, name)).tenants


async def test_a_store_is_made_read_and_changed(api, region):
    name = f"{region}-main"
    made = await api.http.post("/v1/stores", json={"name": name, "region": region, "capacity": 5})
    assert (made.status_code, made.headers["etag"], made.headers["location"]) == (201, '"1"', f"/v1/stores/{name}")
    store = made.json()
    assert (store["state"], store["tenants"], store["isolations"]) == ("open", 0, ["pool", "schema", "database"])

    changed = await api.http.patch(
        f"/v1/stores/{name}", json={"capacity": None, "isolations": ["pool"]}, headers={"If-Match": '"1"'}
    )
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert (changed.json()["capacity"], changed.json()["isolations"]) == (None, ["pool"])
    await problem(
        await api.http.patch(f"/v1/stores/{name}", json={"state": "draining"}, headers={"If-Match": '"1"'}),
        412,
        "stale-version",
    )
    again = await api.http.patch(f"/v1/stores/{name}", json={"isolations": ["pool"]})
    assert again.headers["etag"] == '"2"'
    listed = (await api.http.get("/v1/stores")).json()["items"]
    assert {"primary", name} <= {each["name"] for each in listed}
    await problem(await api.http.post("/v1/stores", json={"name": name, "region": region}), 409, "store-exists")


async def test_what_others_are_told_of_a_store_has_no_address(platform, region):
    await add_store(platform, f"{region}-x", region)
    (record,) = await platform.outbox("platform.state.v1", f"store/{region}-x")
    assert (record["type"], record["payload"]) == (
        "platform.store.v1",
        {"name": f"{region}-x", "region": region, "version": 1},
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x"},
        {"name": "X", "region": "eu"},
        {"name": "x", "region": "eu\x00"},
        {"name": "x", "region": "eu", "capacity": -1},
        {"name": "x", "region": "eu", "capacity": 10**30},
        {"name": "x", "region": "eu", "isolations": []},
        {"name": "x", "region": "eu", "isolations": ["shard"]},
        {"name": "x", "region": "eu", "state": "gone"},
        {"name": "x", "region": "eu", "dsn": "postgresql://x"},
    ],
)
async def test_bad_stores_are_refused(api, body):
    await problem(await api.http.post("/v1/stores", json=body), 422, "invalid-request")


@pytest.mark.parametrize("body", [{"region": "us"}, {"state": None}, {"isolations": []}, {"name": "x"}])
async def test_bad_changes_are_refused(api, body):
    await problem(await api.http.patch("/v1/stores/primary", json=body), 422, "invalid-request")


async def test_only_operators_see_stores(api):
    await problem(await api.http.get("/v1/stores/nowhere"), 404, "not-found")
    await api.sign_in("app")
    for answer in (await api.http.get("/v1/stores"), await api.http.post("/v1/stores", json={})):
        assert answer.status_code == 403


async def test_a_tenant_that_no_store_may_take_is_not_registered(api, region):
    store = {"name": f"{region}-only", "region": region, "isolations": ["pool"]}
    assert (await api.http.post("/v1/stores", json=store)).status_code == 201
    wanted = {"name": "x", "tier": "standard", "admin_email": "a@x.example", "slug": f"{region}-tenant"}
    answer = await api.http.post("/v1/tenants", json={**wanted, "region": "atlantis"})
    reasons = {fault["loc"][1]: fault["msg"] for fault in (await problem(answer, 422, "no-store"))["errors"]}
    assert (reasons[f"{region}-only"], reasons["primary"]) == ("other-region", "other-region")
    answer = await api.http.post("/v1/tenants", json={**wanted, "region": region, "isolation": "database"})
    reasons = {fault["loc"][1]: fault["msg"] for fault in (await problem(answer, 422, "no-store"))["errors"]}
    assert reasons[f"{region}-only"] == "isolation-not-offered"
    found = await api.http.get("/v1/tenants", params={"q": wanted["slug"]})
    assert found.json()["items"] == []
    assert (await api.http.post("/v1/tenants", json={**wanted, "region": region})).status_code == 202


async def test_the_tier_says_where_its_tenants_may_be(api, region):
    for name in ("one", "two"):
        await api.http.post("/v1/stores", json={"name": f"{region}-{name}", "region": region})
    tier = {"placement": {"regions": [region], "preferred": [f"{region}-two"]}}
    assert (await api.http.put(f"/v1/tiers/{region}", json=tier)).status_code == 201
    tenant = await api.create(tier=region)
    await api.activate(tenant["id"])
    placed = (await api.http.get(f"/v1/tenants/{tenant['id']}")).json()
    assert placed["placement"]["store"] == f"{region}-two"
    body = {"slug": f"{region}-b", "name": "x", "tier": region, "admin_email": "a@x.example", "region": "eu-1"}
    answer = await problem(await api.http.post("/v1/tenants", json=body), 422, "no-store")
    assert {"loc": ["stores", "primary"], "msg": "region-not-allowed-by-tier"} in answer["errors"]


async def test_what_changes_between_the_request_and_the_placing_fails_the_run_for_good(platform, region):
    await add_store(platform, f"{region}-s", region)
    tenant = await platform.create(region=region)
    await change_store(platform, f"{region}-s", state="draining")
    await platform.turns()
    (run,) = await platform.runs(tenant.id)
    assert run.row.state == "needs_operator"
    assert (run.steps[0].error_code, run.steps[0].attempt) == ("no-store", 1)
    assert f"{region}-s: not-open" in run.steps[0].error_detail
    failed = await platform.get(tenant.id)
    assert (failed.status, failed.placement) == (TenantStatus.PROVISIONING_FAILED, None)
    assert await tenants_in(platform, f"{region}-s") == 0


async def test_one_that_cannot_be_placed_stops_no_other(platform, region):
    await add_store(platform, f"{region}-s", region, capacity=2)
    tenants = [await platform.create(region=region) for _ in range(3)]
    await platform.turns()
    stores = [(await platform.get(tenant.id)).placement for tenant in tenants]
    assert [placement and placement.store for placement in stores] == [f"{region}-s", f"{region}-s", None]
    assert await tenants_in(platform, f"{region}-s") == 2


async def test_placements_at_once_never_exceed_the_capacity(platform, region):
    await add_store(platform, f"{region}-a", region, capacity=3)
    await add_store(platform, f"{region}-b", region, capacity=4)
    wanted = TenantRow(tier="standard", isolation=Isolation.POOL, region=region)

    async def place_two():
        async with platform.transactions.begin() as session:
            return await occupy_stores(session, [wanted, wanted])

    chosen = [one for pair in await asyncio.gather(*(place_two() for _ in range(5))) for one in pair]
    names = [one for one in chosen if isinstance(one, str)]
    assert (names.count(f"{region}-a"), names.count(f"{region}-b")) == (3, 4)
    assert sum(isinstance(one, NoStore) for one in chosen) == 3
    assert (await tenants_in(platform, f"{region}-a"), await tenants_in(platform, f"{region}-b")) == (3, 4)


async def test_a_cancelled_tenant_gives_its_place_back(platform, region):
    await add_store(platform, f"{region}-s", region, capacity=1)
    tenant = await platform.create(region=region, isolation=Isolation.SCHEMA)
    await platform.turns()
    assert await tenants_in(platform, f"{region}-s") == 1
    (run,) = await platform.runs(tenant.id)
    async with platform.transactions.begin() as session:
        await cancel_run(session, tenant.id, run.row.id, actor=OPERATOR, now=platform.clock.now())
    await platform.turns()
    await platform.answer_all(tenant.id)
    await platform.turns()
    assert await tenants_in(platform, f"{region}-s") == 0
    assert await platform.create(region=region)


async def test_a_store_with_tenants_is_drained_before_it_is_closed(api, region):
    name = f"{region}-s"
    await api.http.post("/v1/stores", json={"name": name, "region": region})
    tenant = await api.create(region=region)
    await api.activate(tenant["id"])
    await problem(await api.http.patch(f"/v1/stores/{name}", json={"state": "closed"}), 409, "store-not-empty")
    assert (await api.http.patch(f"/v1/stores/{name}", json={"state": "draining"})).json()["tenants"] == 1
    body = {"slug": f"{region}-b", "name": "x", "tier": "standard", "admin_email": "a@x.example", "region": region}
    await problem(await api.http.post("/v1/tenants", json=body), 422, "no-store")


async def test_the_first_store_counts_the_tenants_that_were_placed_before(service_database):
    database = service_database("tenant")
    async with database.databases() as databases, database.connect() as connection:
        await connection.execute("DELETE FROM system.store")
        await connection.execute(
            "INSERT INTO system.tenant (id, slug, name, status, suspension_reasons, read_only, tier, isolation, store,"
            " admin_email, metadata, version, created_at) SELECT gen_random_uuid(), 'old-' || n, 'x', 'active', '{}',"
            " false, 'standard', 'pool', 'old', 'a@x.example', '{}', 1, now() FROM generate_series(1, 3) AS n"
        )
        transactions = Transactions(databases)

        async def ensure():
            async with transactions.begin() as session:
                return await ensure_default_store(session, "primary", "eu", now=START)

        assert sorted(await asyncio.gather(ensure(), ensure(), ensure())) == [False, False, True]
        rows = await connection.fetch("SELECT name, tenants FROM system.store WHERE name IN ('old', 'primary')")
        assert sorted(tuple(row) for row in rows) == [("old", 3), ("primary", 0)]
