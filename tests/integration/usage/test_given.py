"""What tiers and plans give: followed from their topics, overridden, forbidden, changed while it is used."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sql_statements import statements_sent

from tenantry import ManualClock, Tier, uuid7
from tenantry.entitlements import BalanceReader, BalanceStore, EntitledTenants, Entitlements, PlanStore
from tenantry.events import OutboxRelay, TransactionalConsumer, create_topics
from tenantry.testing import eventually
from usage_service.archive.reading import ArchiveReader
from usage_service.entitlements.balances import BalanceKeeper
from usage_service.entitlements.following import BILLING, GROUP, TENANTS, TIERS, TOPICS, EntitledFollower

from .quotas import NOW, count, get, post, published, put, settle, value
from .support import API_CALLS, BANDWIDTH, event, producer, running

LIMITED = {"api-calls": {"limit": "100", "alerts": ["0.8"]}, "sso": True, "seats": 5}
FORBID = {"forbid": True}


class Sources:
    """The services that say what tenants have."""

    def __init__(self, usage) -> None:
        self.usage = usage
        self.version = 1

    async def tier(self, entitlements, name="standard") -> None:
        self.version += 1
        tier = Tier(name=name, version=self.version, entitlements=entitlements)
        self.usage.state.directory.upsert_tier(tier)
        await self._say(TIERS, f"tier/{name}", msgspec.json.encode(tier))

    async def tenant(self, tenant, **changes):
        self.version += 1
        changed = msgspec.structs.replace(tenant, version=self.version, **changes)
        self.usage.state.directory.upsert(changed)
        await self._say(TENANTS, str(tenant.id), msgspec.json.encode(changed))
        return changed

    async def plans(self, tenant, *plans) -> None:
        self.version += 1
        held = [{"plan": f"p{number}", "plan_version": 1, **plan} for number, plan in enumerate(plans)]
        state = {"tenant_id": str(tenant.id), "standing": "good", "subscriptions": held, "version": self.version}
        await self._say(BILLING, str(tenant.id), msgspec.json.encode(state))

    async def _say(self, topic, key, value) -> None:
        async with producer(self.usage.kafka) as kafka:
            headers = [("ce_sequence", str(self.version).encode())]
            await kafka.send_and_wait(self.usage.kafka.topic(topic), key=key.encode(), value=value, headers=headers)

    async def followed(self) -> bool:
        """Whether everything that was said is stored."""
        rows = await self.usage.fetch(
            "SELECT greatest(max(tenant_version), max(billing_version),"
            " (SELECT max(version) FROM system.entitlement_tier)) AS known FROM pool.entitled_tenant"
        )
        return (rows[0]["known"] or 0) >= self.version


@pytest.fixture
async def sources(usage):
    names = {TENANTS, TIERS, BILLING, "usage.balances.v1", "usage.alerts.v1"}
    await create_topics(usage.kafka, only=sorted(names | {f"{topic}.dlq.v1" for topic in TOPICS}))
    await usage.put_meter("api-calls", API_CALLS)
    return Sources(usage)


@asynccontextmanager
async def following(usage):
    consumer = TransactionalConsumer(
        kafka=usage.kafka,
        engine=usage.databases.system,
        group=GROUP,
        topics=TOPICS,
        handle=EntitledFollower(usage.kafka, usage.state.directory.is_purged).handle,
    )
    async with running(consumer.run()):
        yield


async def said(usage, tenant):
    listed = (await get(usage, tenant, "entitlements")).json()["items"]
    return {each["feature"]: (each["source"], each["has_access"]) for each in listed}


async def test_a_tier_a_plan_and_an_override_each_say_more_than_the_one_before(usage, sources, tenant_a, tenant_b):
    async with following(usage):
        for tenant in (tenant_a, tenant_b):
            await sources.tenant(tenant)
        await sources.tier({**LIMITED, "audit": False, "beta": FORBID, "odd": {"limit": "never"}})
        await eventually(sources.followed)
        expected = {"api-calls": True, "sso": True, "seats": True, "audit": False, "beta": False}
        assert await said(usage, tenant_a) == {name: ("tier", access) for name, access in expected.items()}
        of_tier = await value(usage, tenant_a)
        assert (of_tier["balance"], of_tier["limit"], of_tier["hard"]) == ("100", "100", True)
        assert (await value(usage, tenant_a, "seats"))["config"] == 5
        await sources.plans(tenant_a, {"entitlements": {"api-calls": {"limit": "500"}, "audit": True, "beta": True}})
        await eventually(sources.followed)
    assert (await said(usage, tenant_a))["audit"] == ("plan", True)
    assert (await said(usage, tenant_a))["beta"] == ("tier", False)
    assert (await value(usage, tenant_a))["limit"] == "500"
    assert (await value(usage, tenant_b))["limit"] == "100"
    assert (await put(usage, tenant_a, "quotas/api-calls", {"limit": "7"})).json()["limit"] == "7"
    overridden = await value(usage, tenant_a)
    assert (overridden["source"], overridden["limit"]) == ("override", "7")
    pages = [await get(usage, tenant_a, "entitlements?limit=2")]
    while cursor := pages[-1].json()["next_cursor"]:
        pages.append(await get(usage, tenant_a, f"entitlements?limit=2&cursor={cursor}"))
    assert [each["feature"] for page in pages for each in page.json()["items"]] == sorted(expected)
    deleted = await usage.http.delete(f"/v1/tenants/{tenant_a.id}/quotas/api-calls", headers=usage.operator)
    assert (deleted.status_code, (await value(usage, tenant_a))["source"]) == (204, "plan")
    again = await usage.http.delete(f"/v1/tenants/{tenant_a.id}/quotas/api-calls", headers=usage.operator)
    assert again.status_code == 404


async def test_usage_under_a_tier_has_a_balance_and_alerts_and_nobody_else_has_a_row(
    usage, sources, keeper, tenant_a, tenant_b
):
    async with following(usage), usage.metering(), usage.relaying():
        for tenant in (tenant_a, tenant_b):
            await sources.tenant(tenant)
        await sources.tier(LIMITED)
        await eventually(sources.followed)
        await usage.send(*(event(tenant_a, number) for number in range(85)))

        async def told():
            await settle(keeper)
            return any(body and body["usage"] == "85" for _, _, body in await published(usage, "usage.balances.v1"))

        await eventually(told)
    assert {key for key, _, _ in await published(usage, "usage.balances.v1")} == {f"{tenant_a.id}/api-calls"}
    assert [row["tenant_id"] for row in await usage.fetch("SELECT tenant_id FROM pool.quota")] == [tenant_a.id]
    [(_, _, alert)] = await published(usage, "usage.alerts.v1")
    assert (alert["threshold"], alert["usage"], alert["limit"]) == ("0.8", "85", "100")


async def test_a_change_of_tier_or_plan_reaches_balances_of_what_was_used(usage, sources, keeper, tenant_a, tenant_b):
    async with following(usage):
        await sources.tenant(tenant_a)
        await sources.tenant(tenant_b)
        await eventually(sources.followed)
        await count(usage, tenant_a, 30)
        await settle(keeper)
        assert await published(usage, "usage.balances.v1") == []
        await sources.tier({"api-calls": 100})
        await eventually(sources.followed)
        await settle(keeper)
        await sources.tier({"api-calls": 50}, name="small")
        await sources.tenant(tenant_a, tier="small")
        await eventually(sources.followed)
        await settle(keeper)
        await sources.plans(tenant_a, {"entitlements": {"api-calls": 1000}})
        await eventually(sources.followed)
        await settle(keeper)
        await sources.plans(tenant_a)
        await sources.tier({"api-calls": FORBID}, name="small")
        await eventually(sources.followed)
        await settle(keeper)
        await sources.tier({}, name="small")
        await eventually(sources.followed)
        await settle(keeper)
    bodies = [body for _, _, body in await published(usage, "usage.balances.v1")]
    assert [(body["balance"], body["limit"], body["has_access"]) for body in bodies[:-1]] == [
        ("70", "100", True),
        ("20", "50", True),
        ("970", "1000", True),
        (None, None, False),
    ]
    assert bodies[-1] is None
    assert bodies[0]["config"] == 100
    # Whoever gives it, the period that runs has one limit: the last.
    limits = await usage.fetch("SELECT amount FROM pool.quota_limit ORDER BY since")
    assert [limit["amount"] for limit in limits] == [1000]


async def test_a_plan_begins_and_ends_by_the_clock(usage, sources, archive, tenant_a):
    clock = ManualClock(datetime.now(UTC))
    keeper = BalanceKeeper(usage.databases, usage.state.directory, clock, ArchiveReader(usage.databases, archive.store))
    ends = clock.now() + timedelta(minutes=1)
    plan = {"entitlements": {"api-calls": 10}, "ends_at": ends.isoformat()}
    coming = {"entitlements": {"api-calls": 20}, "starts_at": ends.isoformat()}
    async with following(usage):
        await sources.tenant(tenant_a)
        await count(usage, tenant_a, 4)
        await sources.plans(tenant_a, plan, coming)
        await eventually(sources.followed)
        await settle(keeper)
        assert await keeper.queue_turns() == 0
        clock.advance(timedelta(minutes=1))
        assert await keeper.queue_turns() == 1
        await settle(keeper)
    assert [body["balance"] for _, _, body in await published(usage, "usage.balances.v1")] == ["6", "16"]


async def test_a_top_up_adds_to_what_a_plan_gives_and_outlives_a_change_of_its_period(usage, sources, keeper, tenant_a):
    async with following(usage):
        await sources.tenant(tenant_a)
        await sources.plans(tenant_a, {"entitlements": {"api-calls": 10}})
        await eventually(sources.followed)
        made = await post(usage, tenant_a, "entitlements/api-calls/grants", {"amount": "5"})
        assert made.status_code == 201
        await count(usage, tenant_a, 12)
        assert (await value(usage, tenant_a))["balance"] == "3"
        await sources.plans(tenant_a, {"entitlements": {"api-calls": {"limit": "1", "period": "day"}}})
        await eventually(sources.followed)
        await settle(keeper)
    [listed] = (await get(usage, tenant_a, "entitlements/api-calls/grants")).json()["items"]
    assert listed["id"] == made.json()["id"]
    now = await value(usage, tenant_a)
    assert (now["limit"], now["period_start"][:10]) == ("6", NOW.date().isoformat())
    missing = await post(usage, tenant_a, "entitlements/sso/grants", {"amount": "5"})
    assert missing.status_code == 404


async def test_what_was_bought_under_a_plan_that_has_ended_is_listed_and_can_be_voided(usage, sources, tenant_a):
    path = "entitlements/api-calls/grants"
    async with following(usage):
        await sources.tenant(tenant_a)
        await sources.plans(tenant_a, {"entitlements": {"api-calls": 10}})
        await eventually(sources.followed)
        made = (await post(usage, tenant_a, path, {"amount": "5"})).json()
        await sources.plans(tenant_a)
        await eventually(sources.followed)
    assert (await get(usage, tenant_a, "entitlements/api-calls")).status_code == 404
    assert (await get(usage, tenant_a, path)).json()["items"] == [made]
    voided = await post(usage, tenant_a, f"{path}/{made['id']}/void")
    assert (voided.status_code, voided.json()["voided_at"] is not None) == (200, True)
    assert (await post(usage, tenant_a, path, {"amount": "5"})).status_code == 404
    assert (await get(usage, tenant_a, "entitlements/none/grants")).status_code == 404


async def test_what_nothing_meters_stays_whole_and_a_number_is_a_config_then(usage, sources, keeper, tenant_a):
    await usage.put_meter("mean", {**BANDWIDTH, "aggregation": "avg"})
    async with following(usage):
        await sources.tenant(tenant_a)
        await sources.tier({"ghosts": {"limit": "5"}, "mean": {"limit": "2"}, "seats": 9})
        await eventually(sources.followed)
    for feature, limit in (("ghosts", "5"), ("mean", "2")):
        seen = await value(usage, tenant_a, feature)
        assert (seen["balance"], seen["limit"], seen["usage"], seen["has_access"]) == (limit, limit, "0", True)
        assert (await post(usage, tenant_a, f"entitlements/{feature}/grants", {"amount": "1"})).status_code == 404
    seats = await value(usage, tenant_a, "seats")
    assert (seats["config"], seats["balance"]) == (9, None)
    # A meter, or a feature of one, that is made later is used up from what it has counted.
    await usage.put_meter("ghosts", API_CALLS)
    body = {"kind": "metered", "meter": "api-calls"}
    await count(usage, tenant_a, 4)
    await settle(keeper)
    assert (await usage.http.put("/v1/features/seats", json=body, headers=usage.operator)).status_code == 200
    await settle(keeper)
    assert [body["balance"] for _, _, body in await published(usage, "usage.balances.v1")] == ["5"]
    assert (await post(usage, tenant_a, "entitlements/ghosts/grants", {"amount": "1"})).status_code == 201


async def test_what_was_not_used_rolls_over_from_the_first_period_of_the_subscription_on(usage, sources, tenant_a):
    terms = {"limit": "10", "period": "day", "rollover_max": "4"}
    began = (NOW - timedelta(days=2)).isoformat()
    async with following(usage):
        await sources.tenant(tenant_a)
        await sources.plans(tenant_a, {"entitlements": {"api-calls": terms}, "starts_at": began})
        await eventually(sources.followed)
    assert (await value(usage, tenant_a))["balance"] == "14"


async def test_periods_may_follow_the_subscription(usage, sources, tenant_a):
    starts = (NOW - timedelta(days=3)).replace(hour=5)
    terms = {"limit": "10", "anniversary": True}
    async with following(usage):
        await sources.tenant(tenant_a)
        await sources.plans(tenant_a, {"entitlements": {"api-calls": terms}, "starts_at": starts.isoformat()})
        await eventually(sources.followed)
    assert datetime.fromisoformat((await value(usage, tenant_a))["period_start"]) == starts


async def test_old_and_repeated_documents_change_nothing_and_the_purged_stay_away(usage, sources, tenant_a, tenant_b):
    async with following(usage):
        moved = await sources.tenant(tenant_a, tier="small")
        await sources.tier({"api-calls": 1}, name="small")
        await eventually(sources.followed)
        old = msgspec.structs.replace(moved, tier="other", version=moved.version - 1)
        usage.state.directory.remove(tenant_b.id)
        await sources._say(TENANTS, str(tenant_a.id), msgspec.json.encode(old))
        await sources._say(TENANTS, str(tenant_b.id), msgspec.json.encode(tenant_b))
        await sources.plans(tenant_b, {"entitlements": {"api-calls": 1}})
        await sources.plans(tenant_a, {"entitlements": {}})
        await eventually(sources.followed)
    [row] = await usage.fetch("SELECT tenant_id, tier FROM pool.entitled_tenant")
    assert (row["tenant_id"], row["tier"]) == (tenant_a.id, "small")


async def test_a_step_takes_as_many_statements_for_many_given_quotas_as_for_one(
    usage, sources, keeper, tenant_a, tenant_b
):
    for number in range(6):
        body = {"kind": "metered", "meter": "api-calls"}
        await usage.http.put(f"/v1/features/calls-{number}", json=body, headers=usage.operator)
    async with following(usage):
        for tenant in (tenant_a, tenant_b):
            await sources.tenant(tenant)
            await count(usage, tenant, 1)
        await sources.tier({"calls-0": 1})
        await eventually(sources.followed)
        await settle(keeper)
        await sources.tier({f"calls-{number}": 1 for number in range(2)})
        await eventually(sources.followed)
        with statements_sent() as one:
            assert await keeper.step() > 0
        await sources.tier({f"calls-{number}": 1 for number in range(6)})
        await eventually(sources.followed)
        with statements_sent() as many:
            assert await keeper.step() >= 8
    assert len(many) == len(one)
    assert len(await usage.fetch("SELECT FROM pool.quota")) == 12


async def test_a_product_holds_the_limit_of_a_tier_before_and_after_the_first_balance(usage, sources, keeper, tenant_a):
    store, plans = BalanceStore(), PlanStore()
    reader = BalanceReader(usage.kafka, store, plans)
    given = EntitledTenants(usage.state.directory, plans, keeper._clock)
    product = Entitlements(store, lag_seconds=lambda: reader.lag_seconds, given=given.terms)
    async with following(usage), running(OutboxRelay("usage", usage.databases.system, usage.kafka).run()):
        tenant = await sources.tenant(tenant_a)
        await sources.tier({"api-calls": 3})
        await eventually(sources.followed)
        await reader.start()
        await eventually(lambda: reader.lag_seconds < 10)
        try:
            assert product.check("api-calls", tenant=tenant).balance == 2
            await sources.plans(tenant_a, {"entitlements": {"api-calls": 10}})
            await eventually(lambda: product.check("api-calls", tenant=tenant).limit == 10)
            await eventually(sources.followed)
            await count(usage, tenant_a, 9)
            await settle(keeper)
            await eventually(lambda: store.get(tenant_a.id, "api-calls") is not None)
            known = store.get(tenant_a.id, "api-calls")
            assert known is not None
            assert (known.balance, known.limit) == (1, 10)
        finally:
            await reader.stop()


async def test_what_was_put_by_hand_can_be_taken_back(usage, sources, keeper, tenant_a):
    await usage.http.put("/v1/features/sso", json={"kind": "boolean"}, headers=usage.operator)
    async with following(usage):
        await sources.tenant(tenant_a)
        await sources.tier({"sso": True})
        await eventually(sources.followed)
    await put(usage, tenant_a, "entitlements/sso", {"enabled": False})
    assert await said(usage, tenant_a) == {"sso": ("override", False)}
    path = f"/v1/tenants/{tenant_a.id}/entitlements/sso"
    assert (await usage.http.delete(path, headers=usage.tenant_key(tenant_a))).status_code == 403
    assert (await usage.http.delete(path, headers=usage.operator)).status_code == 204
    assert (await usage.http.delete(path, headers=usage.operator)).status_code == 404
    assert await said(usage, tenant_a) == {"sso": ("tier", True)}
    assert (await get(usage, tenant_a, f"entitlements/{uuid7()}")).status_code == 404
    await settle(keeper)
