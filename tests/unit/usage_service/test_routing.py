"""When a tenant is spread, how far, and when it comes together again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_service.domain.routing import RoutingPolicy, wanted_buckets
from usage_service.metering.rows import EventRow
from usage_service.routing.rates import TenantRates

POLICY = RoutingPolicy(1_000, timedelta(minutes=1), timedelta(hours=1), 12)


@pytest.mark.parametrize(
    ("buckets", "lately", "quiet", "wanted"),
    [
        (1, [1_000] * 6, [], 1),  # as much as a bucket carries
        (1, [1_001] * 6, [], 2),
        (1, [9_000] * 5 + [900], [], 1),  # not for long enough
        (1, [], [9_000], 1),
        (1, [3_500] * 6, [], 4),  # at once what it needs, each change has a price
        (4, [3_500] * 6, [3_500], 4),
        (8, [99_000] * 6, None, 12),  # no more than partitions
        (12, [99_000] * 6, None, 12),
        (2, [900] * 6, [900], 2),  # one bucket would do, and would be hot at the next breath
        (2, [400] * 6, [400, 499], 1),
        (2, [400] * 6, [400, 500], 2),
        (2, [400] * 6, None, 2),  # too young
        (12, [0] * 6, [], 1),
        (12, [0] * 6, [1_499], 3),
        (16, [0] * 6, None, 12),  # the topic had more partitions once
    ],
)
def test_what_a_tenant_gets(buckets, lately, quiet, wanted):
    assert wanted_buckets(buckets, lately, quiet, POLICY) == wanted


@given(st.integers(1, 12), st.integers(0, 50_000))
def test_who_sends_evenly_is_changed_at_most_once(buckets, rate):
    """No tenant goes to and fro, whatever it sends."""
    first = wanted_buckets(buckets, [rate] * 6, [rate] * 360, POLICY)
    assert wanted_buckets(first, [rate] * 6, [rate] * 360, POLICY) == first
    assert first == POLICY.most or rate <= first * POLICY.hot_rate


def test_a_sample_stands_for_all_rows():
    loud, quiet = b"l" * 16, b"q" * 16
    rates = TenantRates()
    for batch in range(1_000):
        rates.sample([row(loud, batch * 1_000)] * 60 + [row(quiet, batch * 1_000)] * 3)
    counts = {tenant: events for (tenant, _), events in rates._counts.items()}
    assert 54_000 < counts[loud] < 66_000
    assert 1_500 < counts[quiet] < 5_000


def row(tenant: bytes, received: int) -> EventRow:
    return EventRow(b"", tenant, b"", 0, 0, received, 0, 0, 0, "", "", "", b"", {})
