"""Metrics of tenants have few labels, whoever comes and goes, and the busiest tenants have theirs."""

from collections import Counter
from itertools import count
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.http._heavy_hitters import HeavyHitters
from tenantry.http._tenant_metrics import _ALL, OTHER, WINDOW_SECONDS, TenantMetrics

COUNTERS = (
    "tenant_requests_total",
    "tenant_request_errors_total",
    "tenant_limited_requests_total",
    "tenant_request_seconds_total",
)


def tenant(number):
    return UUID(int=number + 1)


def labels(service):
    """By counter's name, the value under each label of the service."""
    return {
        name: {
            sample.labels["tenant"]: sample.value
            for metric in counter.collect()
            for sample in metric.samples
            if sample.name == name and sample.labels["service"] == service
        }
        for name, counter in zip(COUNTERS, _ALL, strict=True)
    }


NUMBERS = count()


class Time:
    now = 0.0

    def __call__(self):
        return self.now


@given(stream=st.lists(st.integers(0, 30), max_size=400), capacity=st.integers(1, 8))
def test_counts_are_never_too_high_and_low_by_no_more_than_promised(stream, capacity):
    hitters = HeavyHitters(capacity)
    for number in stream:
        hitters.add(tenant(number))
        assert len(hitters) <= capacity
    for number, added in Counter(stream).items():
        known = hitters._counts.get(tenant(number), 0)
        assert added - len(stream) / (capacity + 1) <= known <= added


@settings(deadline=None)
@given(
    top=st.integers(1, 4),
    windows=st.lists(st.lists(st.integers(0, 200), max_size=60), max_size=8),
)
def test_labels_stay_bounded_and_every_request_counts_under_one(top, windows):
    time, service = Time(), f"bounded-{next(NUMBERS)}"
    metrics = TenantMetrics(service, top, monotonic=time)
    ever: Counter[str] = Counter()
    for window in windows:
        for number in window:
            metrics.observe(tenant(number), 200, 0.01)
            ever[str(tenant(number))] += 1
            found = labels(service)
            assert all(values.keys() == {OTHER, *map(str, metrics._named)} for values in found.values())
            assert len(metrics._named) <= top
            requests = found["tenant_requests_total"]
            assert all(value <= ever[name] for name, value in requests.items() if name != OTHER)
            assert sum(requests.values()) <= ever.total()
        if time.now == 0:  # nobody has fallen out yet, so nothing is gone
            assert sum(labels(service)["tenant_requests_total"].values()) == ever.total()
        time.now += WINDOW_SECONDS


def test_the_busiest_is_named_and_who_falls_silent_is_removed():
    time = Time()
    metrics = TenantMetrics("churn", 2, monotonic=time)
    for number in (0, 1):  # named at once: there is room
        metrics.observe(tenant(number), 200, 1.0)
    for _ in range(50):
        metrics.observe(tenant(7), 200, 1.0)
        metrics.observe(tenant(8), 200, 1.0)
    assert labels("churn")["tenant_requests_total"] == {str(tenant(0)): 1, str(tenant(1)): 1, OTHER: 100}
    time.now += WINDOW_SECONDS
    metrics.observe(tenant(7), 500, 1.0)
    metrics.observe(tenant(8), 429, 2.5)
    found = labels("churn")
    assert found["tenant_requests_total"] == {str(tenant(7)): 1, str(tenant(8)): 1, OTHER: 100}
    assert found["tenant_request_errors_total"] == {str(tenant(7)): 1, str(tenant(8)): 0, OTHER: 0}
    assert found["tenant_limited_requests_total"] == {str(tenant(7)): 0, str(tenant(8)): 1, OTHER: 0}
    assert found["tenant_request_seconds_total"] == {str(tenant(7)): 1.0, str(tenant(8)): 2.5, OTHER: 100.0}


def test_two_that_are_alike_do_not_take_turns():
    time = Time()
    metrics = TenantMetrics("steady", 1, monotonic=time)
    for turn in range(20):
        for _ in range(40 + turn % 2):
            metrics.observe(tenant(0), 200, 0.0)
        for _ in range(41 - turn % 2):
            metrics.observe(tenant(1), 200, 0.0)
        time.now += WINDOW_SECONDS
    assert labels("steady")["tenant_requests_total"].keys() == {str(tenant(0)), OTHER}


@pytest.mark.parametrize(("top", "named"), [(0, False), (3, True)])
async def test_the_middleware_counts_for_the_tenant_unless_told_not_to(make_app, client_of, issuer, a, top, named):
    app = make_app(top_tenants=top)
    before = labels("things")["tenant_requests_total"].get(str(a.id), 0)
    async with client_of(app) as client:
        assert (await client.get("/v1/things/x", headers=issuer.bearer())).status_code == 200
        assert (await client.get("/v1/things/x")).status_code == 401  # nobody's
    assert labels("things")["tenant_requests_total"].get(str(a.id), 0) == before + named
