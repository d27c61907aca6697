"""Limits on requests, of tiers and of tenants, changed live."""

import asyncio

import msgspec
import pytest

from tenantry import Operation, PayloadTooLarge, RateLimited, Tier, uuid7
from tenantry.config import LIMITS, Layer, LayerDocument
from tenantry.limits import TenantFull, TenantLimits, _limiter

READ, WRITE, INGEST = Operation.READ, Operation.WRITE, Operation.INGEST


async def passed(limiter, tenant, operation, requests, cost=1):
    count = 0
    for _ in range(requests):
        try:
            (await limiter.admit(tenant, operation, cost)).place.release()
        except RateLimited:
            continue
        count += 1
    return count


async def test_without_a_tier_or_limits_everything_passes(limiter, tenant_a, publish):
    assert await passed(limiter, tenant_a, READ, 500) == 500
    publish()
    assert await passed(limiter, tenant_a, READ, 500) == 500
    assert (await limiter.admit(tenant_a, READ)).headers == ()
    assert len(limiter.buckets) == 0


async def test_classes_of_their_own_and_the_one_for_the_rest(limiter, tenant_a, tenant_b, publish):
    publish(requests={"default": {"rate": 1, "burst": 30}, "write": {"rate": 1, "burst": 10}})
    assert await passed(limiter, tenant_a, WRITE, 100) == 10
    assert await passed(limiter, tenant_a, READ, 20) + await passed(limiter, tenant_a, INGEST, 100) == 30
    assert await passed(limiter, tenant_b, WRITE, 100) == 10
    # Evidence from services is limited only where it is named.
    assert await passed(limiter, tenant_a, Operation.SERVICE_INGEST, 100) == 100


async def test_services_usage_is_limited_by_name(limiter, tenant_a, publish):
    publish(requests={"service_ingest": {"rate": 5}})
    assert await passed(limiter, tenant_a, Operation.SERVICE_INGEST, 100) == 5


async def test_a_changed_tier_holds_from_the_next_request_on(limiter, tenant_a, publish, hand):
    publish(requests={"read": {"rate": 10, "burst": 10}})
    assert await passed(limiter, tenant_a, READ, 50) == 10
    publish(requests={"read": {"rate": 10, "burst": 25}})
    assert await passed(limiter, tenant_a, READ, 50) == 15
    publish(requests={"read": {"rate": 1, "burst": 1}})
    hand.advance(24)
    assert await passed(limiter, tenant_a, READ, 50) == 0
    hand.advance(1.1)
    assert await passed(limiter, tenant_a, READ, 50) == 1
    publish()
    assert await passed(limiter, tenant_a, READ, 50) == 50


async def test_answers_say_what_is_left_and_refusals_when_to_come_back(limiter, tenant_a, publish, hand):
    publish(requests={"read": {"rate": 2, "burst": 10}})
    admission = await limiter.admit(tenant_a, READ, 4)
    assert admission.headers == ((b"ratelimit-policy", b'"read";q=10;w=5'), (b"ratelimit", b'"read";r=6;t=2'))
    with pytest.raises(RateLimited) as refused:
        await limiter.admit(tenant_a, READ, 9)
    assert refused.value.headers == {
        "Retry-After": "2",
        "RateLimit-Policy": '"read";q=10;w=5',
        "RateLimit": '"read";r=6;t=2',
    }
    hand.advance(2)
    assert await limiter.admit(tenant_a, READ, 9)


async def test_what_costs_more_than_ever_passes_at_once_is_too_large(limiter, tenant_a, publish):
    publish(requests={"read": {"rate": 2, "burst": 10}})
    with pytest.raises(PayloadTooLarge, match="counts as 11, and 10 may come at once"):
        await limiter.admit(tenant_a, READ, 11)
    assert await limiter.admit(tenant_a, READ, 10)


async def test_a_free_request_takes_nothing(limiter, tenant_a, publish):
    publish(requests={"read": {"rate": 1, "burst": 1}})
    assert await passed(limiter, tenant_a, READ, 50, cost=0) == 50


async def test_who_is_full_is_refused_before_its_rate_is_touched(limiter, gate, tenant_a, publish):
    publish(requests={"read": {"rate": 1, "burst": 10}}, concurrency=1)
    place = (await limiter.admit(tenant_a, READ)).place
    waiting = asyncio.create_task(limiter.admit(tenant_a, READ))
    while not gate.waiting:  # noqa: ASYNC110
        await asyncio.sleep(0)
    for _ in range(20):
        with pytest.raises(TenantFull):
            await limiter.admit(tenant_a, READ)
    place.release()
    (await waiting).place.release()
    assert await passed(limiter, tenant_a, READ, 50) == 8


async def test_limits_that_cannot_be_read_leave_what_held_before(limiter, tenant_a, publish, logs):
    publish(requests={"read": {"rate": 1, "burst": 3}})
    assert limiter.limits_of(tenant_a).requests["read"].burst == 3
    publish(requests={"read": {"rate": -1}})
    assert await passed(limiter, tenant_a, READ, 50) == 3
    assert [entry["event"] for entry in logs] == ["limits_not_read"]


async def test_names_of_a_newer_control_plane_are_passed_over(limiter, tenant_a, publish):
    publish(requests={"read": {"rate": 1, "burst": 3, "later": 1}}, something_new={"a": 1})
    assert await passed(limiter, tenant_a, READ, 50) == 3


def says(layer, name, version, **limits):
    return LayerDocument(layer=layer, name=name, namespace=LIMITS, version=version, document=limits)


async def test_a_tenant_has_its_own_limits_from_the_next_request_on(limiter, config, tenant_a, tenant_b, publish, hand):
    publish(requests={"read": {"rate": 1, "burst": 10}, "write": {"rate": 1, "burst": 5}}, connections=2)
    assert await passed(limiter, tenant_a, READ, 50) == 10
    own = says(Layer.TENANT, str(tenant_a.id), 1, requests={"read": {"rate": 1, "burst": 30}}, connections=7)
    config.upsert(own)
    assert await passed(limiter, tenant_a, READ, 50) == 20
    assert await passed(limiter, tenant_b, READ, 50) == 10
    assert await passed(limiter, tenant_a, WRITE, 50) == 5
    assert (limiter.connections_of(tenant_a).cap, limiter.connections_of(tenant_b).cap) == (7, 2)
    # The tier goes on to say what the tenant's own limits do not.
    publish(requests={"read": {"rate": 1, "burst": 12}, "write": {"rate": 1, "burst": 9}}, concurrency=3)
    assert limiter.limits_of(tenant_a).requests["write"].burst == 9
    assert limiter.limits_of(tenant_a).concurrency == 3
    assert limiter.limits_of(tenant_a).requests["read"].burst == 30
    config.remove(Layer.TENANT, str(tenant_a.id), LIMITS)
    hand.advance(1000)
    assert await passed(limiter, tenant_a, READ, 50) == 12


async def test_a_tier_may_bound_what_its_tenants_are_given(limiter, config, directory, tenant_a):
    tier = Tier(
        name="standard", version=1, limits={"connections": 2}, constraints={LIMITS: {"connections": 4, "weight": None}}
    )
    directory.upsert_tier(tier)
    config.upsert(says(Layer.TENANT, str(tenant_a.id), 1, connections=9, weight=50, concurrency=8))
    assert limiter.limits_of(tenant_a) == TenantLimits(connections=4, concurrency=8)


async def test_what_holds_for_everybody_stands_below_the_tier(limiter, config, tenant_a, publish):
    config.upsert(says(Layer.PLATFORM, "", 1, concurrency=100, connections=10))
    assert limiter.limits_of(tenant_a) == TenantLimits(concurrency=100, connections=10)
    publish(connections=5)
    assert limiter.limits_of(tenant_a) == TenantLimits(concurrency=100, connections=5)


async def test_a_tenants_limits_that_cannot_be_read_leave_those_of_its_tier(limiter, config, tenant_a, publish, logs):
    publish(requests={"read": {"rate": 1, "burst": 3}})
    config.upsert(says(Layer.TENANT, str(tenant_a.id), 1, requests={"read": {"rate": -1}}))
    assert await passed(limiter, tenant_a, READ, 50) == 3
    assert [entry["sources"] for entry in logs] == [["tenant " + str(tenant_a.id) + " 1", "tier standard 1"]]


async def test_more_tenants_have_their_own_than_are_kept_ready(limiter, config, tenant_a, publish, monkeypatch):
    monkeypatch.setattr(_limiter, "_MAX_KNOWN", 8)
    publish(connections=1)
    tenants = [msgspec.structs.replace(tenant_a, id=uuid7(), slug=f"s{number}") for number in range(20)]
    for number, tenant in enumerate(tenants):
        config.upsert(says(Layer.TENANT, str(tenant.id), 1, connections=number + 1))
    for _ in range(2):
        assert [limiter.connections_of(tenant).cap for tenant in tenants] == list(range(1, 21))
    assert len(limiter._known) <= 8
