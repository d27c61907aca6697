"""The balances that follow from committed rollups, as they are published, and as a product follows them."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from local_state import GivenState
from sql_statements import statements_sent

from tenantry import (
    QuotaExceeded,
    StartupRefused,
    Tenancy,
    TenancySettings,
    TenantStatus,
    Unavailable,
)
from tenantry.entitlements import BalanceReader, BalanceStore, Entitlements
from tenantry.events import OutboxRelay, create_topics
from tenantry.testing import eventually
from usage_service.entitlements.queue import lock_balances
from usage_service.entitlements.records import withdraw_balances

from .quotas import NOW, count, get, post, published, put, settle, value
from .support import BANDWIDTH, ISSUER, event, running


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
        await lock_balances(other, [tenant_a.id])
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
