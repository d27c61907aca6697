"""A tier's limits on requests, changed live."""

import asyncio

import pytest

from tenantry import Operation, PayloadTooLarge, RateLimited
from tenantry.limits import TenantFull

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
