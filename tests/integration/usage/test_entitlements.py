"""Quotas, grants and features over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tenantry import uuid7
from tenantry.identity import Scope
from tenantry.testing import eventually

from .quotas import NOW, count, get, post, published, put, set_clock, settle, value
from .support import API_CALLS, BANDWIDTH, event


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
    path, half = "entitlements/api-calls/grants", (NOW + timedelta(hours=2, minutes=30)).isoformat()
    for body in (
        {"amount": "0"},
        {"amount": "1", "effective_at": "2020-01-01T00:00:00Z"},
        {"amount": "1", "effective_at": "2090-01-01T00:00:00Z", "expires_at": "2089-01-01T00:00:00Z"},
        {"amount": "1", "rollover_min": "2", "rollover_max": "1"},
        # They would have an hour once they are on whole ones.
        {"amount": "1", "effective_at": half, "expires_at": half},
        {"amount": "1", "expires_at": (datetime.now(UTC) - timedelta(seconds=1)).isoformat()},
        {"amount": "1", "recurrence": {"interval": "hour", "every": 0}},
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


async def test_a_period_is_reset_at_an_hour_and_its_grants_roll_over(usage, keeper, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    noon = datetime(2026, 5, 10, 12, tzinfo=UTC)
    set_clock(usage, tenant_a, noon - timedelta(hours=9))
    await put(usage, tenant_a, "quotas/api-calls", {"limit": "100", "preserve_overage": True})
    await post(usage, tenant_a, "entitlements/api-calls/grants", {"amount": "20", "rollover_max": "15"})
    await count(usage, tenant_a, 90, at=noon - timedelta(hours=9))
    await count(usage, tenant_a, 7, at=noon)
    set_clock(usage, tenant_a, noon + timedelta(minutes=20))
    await settle(keeper)
    path, once = "entitlements/api-calls/reset", usage.operator | {"Idempotency-Key": "r"}
    first, again = [await post(usage, tenant_a, path, {}, **once) for _ in range(2)]
    assert (first.status_code, first.json()) == (200, again.json()), first.text
    seen = first.json()
    assert (seen["usage"], seen["balance"], seen["period_start"]) == ("7", "108", "2026-05-10T12:00:00Z")
    assert seen["resets_at"] == "2026-06-10T12:00:00Z"
    await settle(keeper)
    assert (await published(usage, "usage.balances.v1"))[-1][2]["usage"] == "7"
    # Again in the same hour it is what it is.
    assert (await post(usage, tenant_a, path, {})).json() == seen
    # With what is owed, and back to the first of the month.
    await count(usage, tenant_a, 130, at=noon)
    set_clock(usage, tenant_a, noon + timedelta(hours=5))
    body = {"at": (noon + timedelta(hours=3)).isoformat(), "retain_anchor": True}
    kept = (await post(usage, tenant_a, path, body)).json()
    assert (kept["usage"], kept["balance"], kept["resets_at"]) == ("0", "85", "2026-06-10T12:00:00Z")
    for wrong in (noon + timedelta(hours=6), noon, noon + timedelta(hours=4, minutes=30)):
        assert (await post(usage, tenant_a, path, {"at": wrong.isoformat()})).status_code == 422
    assert (await post(usage, tenant_a, "entitlements/none/reset", {})).status_code == 404
    own = usage.tenant_key(tenant_a)
    assert (await usage.http.post(f"/v1/tenants/{tenant_a.id}/{path}", json={}, headers=own)).status_code == 403


async def test_a_grant_may_recur_every_so_many_hours(usage, quota, tenant_a):
    body = {"amount": "5", "recurrence": {"interval": "hour", "every": 6}}
    made = await post(usage, tenant_a, "entitlements/api-calls/grants", body)
    assert (made.status_code, made.json()["recurrence"]["every"]) == (201, 6)
    [listed] = (await get(usage, tenant_a, "entitlements/api-calls/grants")).json()["items"]
    assert listed == made.json()


async def test_a_quota_may_buy_again_where_grants_are_over(usage, quota, tenant_a, monkeypatch):
    monkeypatch.setattr("usage_service.entitlements.service.MAX_GRANTS", 1)
    path = "entitlements/api-calls/grants"
    made = await post(usage, tenant_a, path, {"amount": "5"})
    assert (await post(usage, tenant_a, path, {"amount": "5"})).json()["type"] == "too-many-grants"
    await post(usage, tenant_a, f"{path}/{made.json()['id']}/void")
    assert (await post(usage, tenant_a, path, {"amount": "5"})).status_code == 201


@pytest.mark.parametrize("config", ["NaN", "[1e400]", '"\\ud800"', '{"a\\u0000": 1}', "[" * 3000 + "]" * 3000])
async def test_configs_that_cannot_be_stored(usage, tenant_a, config):
    await usage.http.put("/v1/features/seats", json={"kind": "static"}, headers=usage.operator)
    answer = await usage.http.put(
        f"/v1/tenants/{tenant_a.id}/entitlements/seats",
        content=f'{{"enabled": true, "config": {config}}}',
        headers=usage.operator | {"Content-Type": "application/json"},
    )
    assert answer.status_code in {400, 422}, answer.text


async def test_texts_that_only_look_like_nul_are_stored(usage, tenant_a):
    await usage.http.put("/v1/features/seats", json={"kind": "static"}, headers=usage.operator)
    answer = await put(usage, tenant_a, "entitlements/seats", {"enabled": True, "config": r"\x00 \u0000"})
    assert (answer.status_code, answer.json()["config"]) == (200, r"\x00 \u0000")


@pytest.mark.parametrize("path", ["entitlements/a%00b", "quotas/a%00b", "entitlements/a%00b/grants"])
async def test_names_with_nul_are_refused(usage, tenant_a, path):
    assert (await get(usage, tenant_a, path)).status_code == 422
    assert (await usage.http.get("/v1/meters/a%00b", headers=usage.operator)).status_code == 422
    body = {"kind": "metered", "meter": "a\0b"}
    assert (await usage.http.put("/v1/features/x", json=body, headers=usage.operator)).status_code == 422


async def test_the_events_behind_what_was_used_are_a_link_away(usage, quota, keeper, tenant_a):
    async with usage.metering():
        await usage.send(*(event(tenant_a, number) for number in range(85)))
        await eventually(usage.counted)
    seen = await value(usage, tenant_a)
    await usage.fetch("INSERT INTO system.balance_change (tenant_id, feature) VALUES ($1, 'api-calls')", tenant_a.id)
    await settle(keeper)
    [(_, _, alert)] = await published(usage, "usage.alerts.v1")
    assert alert["events"] == seen["events"]
    events = await usage.http.get(f"{seen['events']}&limit=100", headers=usage.tenant_key(tenant_a))
    assert len(events.json()["items"]) == 85


async def test_what_is_taken_away_while_it_is_listed_is_left_out(usage, quota, tenant_a, monkeypatch):
    async def names(*_, **__):
        return ["api-calls", "gone"]

    monkeypatch.setattr("usage_service.entitlements.api.entitled_features", names)
    listed = (await get(usage, tenant_a, "entitlements")).json()["items"]
    assert [each["feature"] for each in listed] == ["api-calls"]
