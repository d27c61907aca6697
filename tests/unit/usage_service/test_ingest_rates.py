"""What a tenant pays is its own, whatever key its records have and whoever stands beside it in the batch."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from tenantry import Tenant, TenantId, TenantStatus, Tier, uuid7
from tenantry.events import partition_key
from tenantry.limits import FairGate, Limiter
from tenantry.testing import GivenState
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import Accepted
from usage_service.domain.intake import Intake, Refusal
from usage_service.ingest.rates import UNIT_BYTES, IngestRates

NOW = datetime(2026, 11, 21, tzinfo=UTC)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def tenant(tier: str) -> Tenant:
    return Tenant(
        id=TenantId(uuid7()), slug=tier, name=tier, status=TenantStatus.ACTIVE, tier=tier, version=1, created_at=NOW
    )


def tier(name: str, version: int = 1, **requests: int) -> Tier:
    limits = {"requests": {kind: {"rate": 0.001, "burst": burst} for kind, burst in requests.items()}}
    return Tier(name=name, version=version, limits=limits)


def rates_of(*tenants: Tenant, tiers: list[Tier]):
    state, clock = GivenState(tenants), Clock()
    for each in tiers:
        state.directory.upsert_tier(each)
    limiter = Limiter("usage", state.directory, gate=FairGate(10, max_waiting=10, wait=1.0))
    return IngestRates(limiter, state.directory, lambda _: 1, clock), state.directory, limiter, clock


def accepted(owner: Tenant, number: int, *, size: int = 100, routing: int = 1) -> Accepted:
    key = partition_key(owner.id, routing, "s", str(number))
    return Accepted(key, b"x" * size, str(number), NOW)


def beyond(rates: IngestRates, *events: Accepted, refused: tuple[int, ...] = ()):
    intake = Intake(list(events), [Refusal(index, InvalidEvent("id", "is required")) for index in refused])
    left, first = asyncio.run(rates.refuse_beyond(intake))
    return [event.id for event in left.accepted], [(each.index, each.error.kind) for each in left.refused], first


def test_indices_are_those_of_the_request():
    loud, quiet = tenant("limited"), tenant("free")
    rates, *_ = rates_of(loud, quiet, tiers=[tier("limited", service_ingest=1), tier("free")])
    assert beyond(rates, accepted(loud, 0))[1:] == ([], None)
    events = (accepted(quiet, 1), accepted(loud, 2), accepted(quiet, 3), accepted(loud, 4))
    kept, refusals, first = beyond(rates, *events, refused=(0, 2))
    assert kept == ["1", "3"]
    assert refusals == [(0, "invalid"), (2, "invalid"), (3, "rate-limited"), (5, "rate-limited")]
    assert first is not None
    assert first.retry_after > 1


def test_a_tenant_that_is_spread_over_keys_pays_once_for_all_of_them():
    loud = tenant("limited")
    rates, *_ = rates_of(loud, tiers=[tier("limited", service_ingest=2)])
    spread = [accepted(loud, number, routing=8, size=UNIT_BYTES // 32) for number in range(32)]
    assert len({event.key for event in spread}) > 4
    assert beyond(rates, *spread)[1:] == ([], None)
    assert beyond(rates, accepted(loud, 99))[1:] == ([], None)
    kept, refusals, _ = beyond(rates, *spread)
    assert (kept, len(refusals)) == ([], 32)


def test_a_limit_is_found_when_a_tier_gets_one_and_asked_for_again_without():
    owner = tenant("free")
    rates, directory, limiter, clock = rates_of(owner, tiers=[tier("free")])
    asked = []
    limits_of = limiter.limits_of

    def asked_limits_of(each):
        asked.append(each)
        return limits_of(each)

    limiter.limits_of = asked_limits_of
    for _ in range(3):
        assert beyond(rates, accepted(owner, 1))[2] is None
    assert len(asked) == 1
    clock.seconds += 1
    assert beyond(rates, accepted(owner, 1))[2] is None
    assert len(asked) == 2
    directory.upsert_tier(tier("free", version=2, service_ingest=1))
    assert beyond(rates, accepted(owner, 2))[2] is None
    assert beyond(rates, accepted(owner, 3))[2] is not None
