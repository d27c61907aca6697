"""Quotas, grants and features over HTTP, and the balances and alerts that follow from committed rollups."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from local_state import GivenState
from sql_statements import statements_sent

from tenantry import (
    QuotaExceeded,
    StartupRefused,
    SystemClock,
    Tenancy,
    TenancySettings,
    Tenant,
    TenantClock,
    TenantStatus,
    Unavailable,
    uuid7,
)
from tenantry.entitlements import BalanceReader, BalanceStore, Entitlements
from tenantry.events import OutboxRelay, create_topics
from tenantry.identity import Scope
from tenantry.testing import eventually
from usage_service.entitlements.balances import _LOCK, BalanceKeeper, withdraw_balances

from .support import API_CALLS, BANDWIDTH, ISSUER, event, running

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


@pytest.fixture
async def quota(usage, tenant_a):
    """A hard quota of 100 a month, with alerts, on a meter of its own."""
    meter = await usage.put_meter("api-calls", API_CALLS)
    body = {"limit": "100", "period": "month", "hard": True, "alerts": ["0.8", "1.0"]}
    answer = await put(usage, tenant_a, "quotas/api-calls", body)
    assert answer.status_code == 200, answer.text
    return meter


@pytest.fixture
def keeper(usage):
    return BalanceKeeper(usage.databases, usage.state.directory, SystemClock())


async def put(usage, tenant, path, body, headers=None):
    return await usage.http.put(f"/v1/tenants/{tenant.id}/{path}", json=body, headers=headers or usage.operator)


async def post(usage, tenant, path, body=None, **headers):
    return await usage.http.post(f"/v1/tenants/{tenant.id}/{path}", json=body, headers=usage.operator | headers)


async def get(usage, tenant, path, headers=None):
    return await usage.http.get(f"/v1/tenants/{tenant.id}/{path}", headers=headers or usage.tenant_key(tenant))


async def value(usage, tenant, feature="api-calls"):
    answer = await get(usage, tenant, f"entitlements/{feature}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def count(usage, tenant, number, *, at=NOW, slug="api-calls"):
    """Sets what the meter has counted in an hour, as a batch of the worker would leave it."""
    async with usage.database.connect("system") as connection, connection.transaction():
        [meter] = await connection.fetch("SELECT id FROM system.meter WHERE slug = $1 AND until IS NULL", slug)
        await connection.execute(
            """
            INSERT INTO pool.usage_rollup (tenant_id, meter_id, window_start, group_hash, version, count, groups)
            VALUES ($1, $2, $3, $4, 1, $5, '{}')
            ON CONFLICT (tenant_id, meter_id, window_start, group_hash)
            DO UPDATE SET count = excluded.count, version = usage_rollup.version + 1
            """,
            tenant.id, meter["id"], at, uuid7() if number < 0 else tenant.id, number,
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO system.balance_change (tenant_id, feature) VALUES ($1, $2)", tenant.id, slug
        )


async def published(usage, topic):
    rows = await usage.fetch(
        "SELECT key, version, payload FROM system.outbox WHERE topic = $1 ORDER BY version, id", topic
    )
    return [(row["key"], row["version"], row["payload"] and json.loads(row["payload"])) for row in rows]


async def settle(keeper):
    while await keeper.step():
        pass


async def test_a_quota_is_put_read_and_used_up(usage, quota, tenant_a):
    await count(usage, tenant_a, 30)
    seen = await value(usage, tenant_a)
    assert (seen["has_access"], seen["balance"], seen["usage"], seen["overage"]) == (True, "70", "30", "0")
    assert (seen["limit"], seen["hard"]) == ("100", True)
    month = NOW.replace(day=1, hour=0)
    assert datetime.fromisoformat(seen["period_start"]) == month
    assert datetime.fromisoformat(seen["resets_at"]) == (month + timedelta(days=32)).replace(day=1)
    await count(usage, tenant_a, 130)
    seen = await value(usage, tenant_a)
    assert (seen["has_access"], seen["balance"], seen["overage"]) == (False, "0", "30")
    read = await get(usage, tenant_a, "quotas/api-calls")
    assert (read.json()["limit"], read.headers["ETag"]) == ("100", '"1"')


async def test_events_that_are_sent_use_it_up_and_are_published(usage, quota, keeper, tenant_a, tenant_b):
    await settle(keeper)  # what the quota itself has queued
    async with usage.metering(), usage.relaying():
        await usage.send(*(event(tenant_a, number) for number in range(85)), *(event(tenant_b, n) for n in range(3)))
        await eventually(usage.counted)

        async def told():
            await settle(keeper)
            return any(body and body["usage"] == "85" for _, _, body in await published(usage, "usage.balances.v1"))

        await eventually(told)
    [(key, _, alert)] = await published(usage, "usage.alerts.v1")
    assert key == str(tenant_a.id)
    assert (alert["threshold"], alert["usage"], alert["limit"]) == ("0.8", "85", "100")
    assert (await value(usage, tenant_a))["balance"] == "15"


async def test_a_top_up_pays_overage_and_is_created_once(usage, quota, tenant_a):
    await count(usage, tenant_a, 130)
    path, body = "entitlements/api-calls/grants", {"amount": "50"}
    once = usage.operator | {"Idempotency-Key": "k"}
    first, again = [await post(usage, tenant_a, path, body, **once) for _ in range(2)]
    assert (first.status_code, first.json()) == (201, again.json())
    assert (await value(usage, tenant_a))["balance"] == "20"
    listed = (await get(usage, tenant_a, path)).json()["items"]
    assert [grant["id"] for grant in listed] == [first.json()["id"]]
    void = await post(usage, tenant_a, f"{path}/{first.json()['id']}/void")
    assert (void.status_code, void.json()["voided_at"] is not None) == (200, True)
    repeated = await post(usage, tenant_a, f"{path}/{first.json()['id']}/void")
    assert repeated.json() == void.json()
    assert (await value(usage, tenant_a))["overage"] == "30"


async def test_features_that_are_not_metered(usage, keeper, tenant_a):
    for slug, kind in (("sso", "boolean"), ("seats", "static")):
        made = await usage.http.put(f"/v1/features/{slug}", json={"kind": kind}, headers=usage.operator)
        assert made.status_code == 200
    assert (await put(usage, tenant_a, "entitlements/sso", {"enabled": True})).status_code == 200
    assert (await put(usage, tenant_a, "entitlements/seats", {"enabled": True})).status_code == 422
    assert (await put(usage, tenant_a, "entitlements/seats", {"enabled": True, "config": {"n": 5}})).status_code == 200
    assert (await put(usage, tenant_a, "entitlements/nothing", {"enabled": True})).status_code == 404
    listed = (await get(usage, tenant_a, "entitlements")).json()["items"]
    assert [(each["feature"], each["has_access"], each["config"]) for each in listed] == [
        ("seats", True, {"n": 5}),
        ("sso", True, None),
    ]
    await settle(keeper)
    assert {key for key, _, _ in await published(usage, "usage.balances.v1")} == {
        f"{tenant_a.id}/sso",
        f"{tenant_a.id}/seats",
    }
    fixed = await usage.http.put("/v1/features/sso", json={"kind": "static"}, headers=usage.operator)
    assert (fixed.status_code, fixed.json()["type"]) == (409, "feature-fixed")


async def test_a_metered_feature_has_a_quota_of_its_own(usage, quota, tenant_a):
    body = {"kind": "metered", "meter": "api-calls"}
    assert (await usage.http.put("/v1/features/calls", json=body, headers=usage.operator)).status_code == 200
    assert (await put(usage, tenant_a, "quotas/calls", {"limit": "10", "period": "day"})).status_code == 200
    await count(usage, tenant_a, 4)
    assert (await value(usage, tenant_a, "calls"))["balance"] == "6"
    assert (await value(usage, tenant_a))["balance"] == "96"


async def test_who_may_do_what(usage, quota, tenant_a, tenant_b):
    own = usage.tenant_key(tenant_a)
    assert (await put(usage, tenant_a, "quotas/api-calls", {"limit": "9"}, own)).status_code == 403
    assert (await get(usage, tenant_a, "entitlements/api-calls", own)).status_code == 200
    assert (await get(usage, tenant_b, "entitlements/api-calls", own)).status_code == 404
    writer = usage.state.key(Scope.TENANT_WRITE, tenant=tenant_a)
    nobody = await get(usage, tenant_b, "entitlements/api-calls")
    unknown = await usage.http.get(f"/v1/tenants/{uuid7()}/entitlements/api-calls", headers=usage.operator)
    assert nobody.status_code == unknown.status_code == 404
    assert (await put(usage, tenant_b, "quotas/api-calls", {"limit": "9"}, usage.service)).status_code == 200
    assert (await put(usage, tenant_b, "quotas/api-calls", {"limit": "9"}, writer)).status_code in {403, 404}


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"limit": 0.5}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "NaN"}, "limit"),
        ({"limit": "1", "period": "decade"}, "period"),
        ({"limit": "1", "alerts": ["0"]}, "alerts"),
        ({"limit": "1", "time_zone": "Mars/Base"}, "time_zone"),
        ({"limit": "1", "time_zone": "Asia/Kolkata"}, "anchor"),
        ({"limit": "1", "anchor": "2026-01-01T00:30:00Z"}, "anchor"),
        ({"limit": "1", "surprise": 1}, "surprise"),
        ({}, "limit"),
    ],
)
async def test_quotas_that_cannot_be(usage, quota, tenant_a, body, loc):
    answer = await put(usage, tenant_a, "quotas/api-calls", body)
    assert answer.status_code == 422
    assert any(loc in error["loc"] for error in answer.json()["errors"]), answer.text


async def test_meters_that_are_not_used_up(usage, tenant_a):
    await usage.put_meter("mean", {**BANDWIDTH, "aggregation": "avg"})
    assert (await put(usage, tenant_a, "quotas/mean", {"limit": "1"})).status_code == 422
    assert (await put(usage, tenant_a, "quotas/none", {"limit": "1"})).status_code == 404


async def test_grants_that_cannot_be(usage, quota, tenant_a):
    path = "entitlements/api-calls/grants"
    for body in (
        {"amount": "0"},
        {"amount": "1", "effective_at": "2020-01-01T00:00:00Z"},
        {"amount": "1", "effective_at": "2090-01-01T00:00:00Z", "expires_at": "2089-01-01T00:00:00Z"},
        {"amount": "1", "rollover_min": "2", "rollover_max": "1"},
    ):
        assert (await post(usage, tenant_a, path, body)).status_code == 422, body
    assert (await post(usage, tenant_a, "entitlements/none/grants", {"amount": "1"})).status_code == 404
    assert (await post(usage, tenant_a, f"{path}/{uuid7()}/void")).status_code == 404


async def test_the_period_stays_while_grants_are_active(usage, quota, tenant_a):
    stale = {"If-Match": '"7"'}
    body = {"limit": "100", "period": "day"}
    answer = await put(usage, tenant_a, "quotas/api-calls", body, usage.operator | stale)
    assert answer.status_code == 412
    made = await post(usage, tenant_a, "entitlements/api-calls/grants", {"amount": "1"})
    fixed = await put(usage, tenant_a, "quotas/api-calls", body)
    assert (fixed.status_code, fixed.json()["type"]) == (409, "quota-period-fixed")
    await post(usage, tenant_a, f"entitlements/api-calls/grants/{made.json()['id']}/void")
    assert (await put(usage, tenant_a, "quotas/api-calls", body)).json()["period"] == "day"


async def test_a_balance_is_published_once_for_each_change(usage, quota, keeper, tenant_a):
    await settle(keeper)
    for _ in range(3):
        await count(usage, tenant_a, 30)
        await settle(keeper)
    await usage.fetch(
        "INSERT INTO system.balance_change (tenant_id, feature) SELECT $1, 'api-calls' FROM generate_series(1, 300)",
        tenant_a.id,
    )
    await settle(keeper)
    balances = await published(usage, "usage.balances.v1")
    assert [(version, body["balance"]) for _, version, body in balances] == [(1, "100"), (2, "70")]


async def test_a_threshold_alerts_once_whatever_happens(usage, quota, keeper, tenant_a):
    for used in (79, 80, 60, 85, 100, 10, 120):
        await count(usage, tenant_a, used)
        await settle(keeper)
    await put(usage, tenant_a, "quotas/api-calls", {"limit": "110", "alerts": ["0.8", "1.0", "1.05"]})
    await settle(keeper)
    alerts = await published(usage, "usage.alerts.v1")
    assert [(body["threshold"], body["usage"]) for _, _, body in alerts] == [
        ("0.8", "80"),
        ("1", "100"),
        ("1.05", "120"),
    ]
    assert len({version for _, version, _ in alerts}) == 3


async def test_a_step_that_is_killed_leaves_everything_as_it_was(usage, quota, keeper, tenant_a, monkeypatch):
    await settle(keeper)
    await count(usage, tenant_a, 90)

    async def killed(*_):
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr("usage_service.entitlements.balances.append_outbox_many", killed)
        with pytest.raises(ConnectionError):
            await keeper.step()
    assert await published(usage, "usage.alerts.v1") == []
    assert len(await usage.fetch("SELECT FROM system.balance_change")) == 1
    await settle(keeper)
    assert len(await published(usage, "usage.alerts.v1")) == 1


async def test_a_period_that_is_over_resets_by_the_clock_and_alerts_for_its_last_usage(usage, keeper, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    midnight = datetime(2026, 5, 10, tzinfo=UTC)
    clock_id = uuid7()

    def clocked(now: datetime, version: int) -> Tenant:
        return msgspec.structs.replace(tenant_a, clock=TenantClock(clock_id, now), version=tenant_a.version + version)

    usage.state.directory.upsert(clocked(midnight - timedelta(hours=2), 1))
    body = {"limit": "10", "period": "day", "alerts": ["1"]}
    assert (await put(usage, tenant_a, "quotas/api-calls", body)).status_code == 200
    await settle(keeper)
    assert await keeper.queue_turns() == 0
    assert await keeper.step() == 0
    usage.state.directory.upsert(clocked(midnight + timedelta(minutes=1), 2))
    await count(usage, tenant_a, 12, at=midnight - timedelta(hours=1))
    assert [await keeper.queue_turns() for _ in range(2)] == [1, 0]
    await settle(keeper)
    [(_, _, alert)] = await published(usage, "usage.alerts.v1")
    assert datetime.fromisoformat(alert["resets_at"]) == midnight
    last = (await published(usage, "usage.balances.v1"))[-1][2]
    assert (last["balance"], datetime.fromisoformat(last["period_start"])) == ("10", midnight)


async def test_what_is_taken_away_is_withdrawn_and_its_versions_go_on(usage, quota, keeper, tenant_a):
    await settle(keeper)
    path = f"/v1/tenants/{tenant_a.id}/quotas/api-calls"
    assert (await usage.http.delete(path, headers=usage.operator)).status_code == 204
    assert (await usage.http.delete(path, headers=usage.operator)).status_code == 404
    await settle(keeper)
    assert (await get(usage, tenant_a, "entitlements/api-calls")).status_code == 404
    await put(usage, tenant_a, "quotas/api-calls", {"limit": "5"})
    await settle(keeper)
    balances = await published(usage, "usage.balances.v1")
    assert [(version, body and body["balance"]) for _, version, body in balances] == [(1, "100"), (2, None), (3, "5")]


async def test_a_purged_tenant_has_no_balance_and_gets_none(usage, quota, keeper, tenant_a):
    await settle(keeper)
    async with usage.databases.system.begin() as connection:
        rows = (await connection.exec_driver_sql("DELETE FROM pool.entitlement_balance RETURNING *")).all()
        await withdraw_balances(connection, rows)
    gone = msgspec.structs.replace(tenant_a, status=TenantStatus.PURGING, version=tenant_a.version + 1)
    usage.state.directory.upsert(gone)
    await count(usage, tenant_a, 1)
    await settle(keeper)
    balances = await published(usage, "usage.balances.v1")
    assert [(version, body and body["balance"]) for _, version, body in balances] == [(1, "100"), (2, None)]
    assert await usage.fetch("SELECT FROM pool.entitlement_balance") == []


async def test_keepers_at_once_agree_with_the_rollups(usage, quota, keeper, tenant_a):
    for used in range(0, 100, 7):
        await count(usage, tenant_a, used)
        await asyncio.gather(*(keeper.step() for _ in range(3)))
    await settle(keeper)
    balances = await published(usage, "usage.balances.v1")
    assert [version for _, version, _ in balances] == list(range(1, len(balances) + 1))
    assert balances[-1][2]["usage"] == "98"
    assert all(Decimal(body["balance"]) + Decimal(body["usage"]) == 100 for _, _, body in balances)


async def test_a_step_reads_only_once_it_has_the_tenant(usage, quota, keeper, tenant_a):
    """Else it could publish, after a later step, what it read before."""
    await settle(keeper)
    await count(usage, tenant_a, 30)
    async with usage.databases.system_session() as other:
        await other.execute(_LOCK, {"tenants": [str(tenant_a.id)]})
        step = asyncio.ensure_future(keeper.step())
        waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = $1"
        [database] = await usage.fetch("SELECT oid FROM pg_database WHERE datname = current_database()")
        await eventually(lambda: usage.fetch(waiting, database["oid"]), 10)
        await count(usage, tenant_a, 40)
    assert await step == 1
    assert (await published(usage, "usage.balances.v1"))[-1][2]["usage"] == "40"


async def test_a_step_takes_as_many_statements_for_many_as_for_one(usage, quota, keeper, tenant_a, tenant_b):
    await settle(keeper)
    await count(usage, tenant_a, 90)
    with statements_sent() as one:
        await keeper.step()
    for number in range(5):
        body = {"kind": "metered", "meter": "api-calls"}
        await usage.http.put(f"/v1/features/calls-{number}", json=body, headers=usage.operator)
        for tenant in (tenant_a, tenant_b):
            terms = {"limit": "50", "period": "month", "alerts": ["0.5", "1"]}
            assert (await put(usage, tenant, f"quotas/calls-{number}", terms)).status_code == 200
    with statements_sent() as many:
        assert await keeper.step() == 10
    assert len(many) == len(one)
    assert len(await published(usage, "usage.alerts.v1")) == 1 + 5 * 2


async def test_users_that_two_segments_saw_are_used_once(usage, keeper, tenant_a):
    await usage.put_meter("users", {**BANDWIDTH, "aggregation": "unique_count", "value": "$.path"})
    today = {"limit": "10", "period": "day", "anchor": (NOW - timedelta(hours=5)).isoformat()}
    assert (await put(usage, tenant_a, "quotas/users", today)).status_code == 200
    assert (await post(usage, tenant_a, "entitlements/users/grants", {"amount": "5"})).status_code == 201
    early = (NOW - timedelta(hours=2)).isoformat()
    seen = [("a", early), ("b", early), ("a", NOW.isoformat()), ("c", NOW.isoformat())]
    async with usage.metering():
        await usage.send(
            *(event(tenant_a, n, time=at, data={"path": path}) for n, (path, at) in enumerate(seen)),
        )
        await eventually(usage.counted)
    found = await value(usage, tenant_a, "users")
    assert (found["usage"], found["balance"], found["limit"]) == ("3", "12", "15")
    await settle(keeper)
    assert [body["usage"] for _, _, body in await published(usage, "usage.balances.v1")] == ["3"]


async def test_a_product_knows_what_is_left_and_refuses_what_is_not(usage, quota, keeper, tenant_a, tenant_b):
    await create_topics(usage.kafka, only=["usage.balances.v1", "usage.alerts.v1"])
    store = BalanceStore()
    reader = BalanceReader(usage.kafka, store)
    product = Entitlements(store, lag_seconds=lambda: reader.lag_seconds)
    await count(usage, tenant_a, 97)
    try:
        async with running(OutboxRelay("usage", usage.databases.system, usage.kafka).run()):
            await settle(keeper)
            await reader.start()
            await eventually(lambda: store.get(tenant_a.id, "api-calls") is not None)
            for left in (2, 1, 0):
                assert product.check("api-calls", tenant=tenant_a).balance == left
            with pytest.raises(QuotaExceeded):
                product.check("api-calls", tenant=tenant_a)
            with pytest.raises(QuotaExceeded):
                product.check("api-calls", tenant=tenant_b)
            assert (await post(usage, tenant_a, "entitlements/api-calls/grants", {"amount": "9"})).status_code == 201
            await settle(keeper)

            def topped_up() -> bool:
                balance = store.get(tenant_a.id, "api-calls")
                return balance is not None and balance.balance == 12

            await eventually(topped_up)
            assert product.check("api-calls", 9, tenant=tenant_a).balance == 0
            await usage.http.delete(f"/v1/tenants/{tenant_a.id}/quotas/api-calls", headers=usage.operator)
            await settle(keeper)
            await eventually(lambda: store.get(tenant_a.id, "api-calls") is None)
    finally:
        await reader.stop()


async def test_a_tenancy_follows_the_balances_where_it_is_set_to(usage, quota, keeper, tenant_a, monkeypatch):
    await create_topics(usage.kafka, only=["usage.balances.v1", "usage.alerts.v1"])
    monkeypatch.setenv("TENANTRY_KAFKA_BOOTSTRAP", usage.kafka.kafka_bootstrap)
    monkeypatch.setenv("TENANTRY_TOPIC_PREFIX", usage.kafka.topic_prefix)
    settings = TenancySettings(issuer=ISSUER, entitlements="kafka", entitlements_hold_seconds=30)
    tenancy = Tenancy("app", settings, source=GivenState([tenant_a]))
    await settle(keeper)
    async with running(OutboxRelay("usage", usage.databases.system, usage.kafka).run()), tenancy.run():

        async def known() -> bool:
            with contextlib.suppress(Unavailable, QuotaExceeded):
                return tenancy.entitlements.check("api-calls", 99, tenant=tenant_a).balance == 1
            return False

        await eventually(known)
        with pytest.raises(QuotaExceeded):
            tenancy.entitlements.check("api-calls", 2, tenant=tenant_a)
    with pytest.raises(StartupRefused):
        _ = tenancy.entitlements
