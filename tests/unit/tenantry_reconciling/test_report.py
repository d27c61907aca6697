"""Pages and their digests: the same wherever they are worked out."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from tenantry import Isolation, Placement, Tenant, TenantId, TenantStatus, Tier
from tenantry.reconciling import Look, PlaceCondition, Report, digest_of, has_place, observed

TIER = Tier(name="standard", version=3)


def tenant(number=1, **changes):
    known = Tenant(
        id=TenantId(UUID(int=number)),
        slug=f"t{number}",
        name="T",
        status=TenantStatus.ACTIVE,
        tier="standard",
        placement=Placement("primary", Isolation.SCHEMA),
        version=4,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return msgspec.structs.replace(known, **changes)


def line(**changes):
    return observed(tenant(**changes), TIER, PlaceCondition.READY)


def test_the_digest_is_of_the_tenants_and_not_of_their_order():
    assert digest_of([line(number=1), line(number=2)]) == digest_of([line(number=2), line(number=1)])


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 5},
        {"status": TenantStatus.SUSPENDED},
        {"read_only": True},
        {"moving": True},
        {"tier": "gold"},
        {"placement": Placement("primary", Isolation.SCHEMA, epoch=2)},
        {"placement": Placement("other", Isolation.SCHEMA)},
        {"number": 2},
    ],
)
def test_whatever_differs_gives_another_digest(changes):
    assert digest_of([line(**changes)]) != digest_of([line()])


def test_the_place_and_the_version_of_the_tier_count():
    known = tenant()
    digests = {digest_of([observed(known, TIER, condition)]) for condition in PlaceCondition}
    assert len(digests) == len(PlaceCondition)
    newer = Tier(name="standard", version=4)
    assert digest_of([observed(known, newer, PlaceCondition.READY)]) not in digests
    assert digest_of([observed(known, None, PlaceCondition.READY)]) not in digests


@pytest.mark.parametrize("status", TenantStatus)
def test_a_place_is_judged_while_a_tenant_lives_somewhere(status):
    lives = {TenantStatus.ACTIVE, TenantStatus.SUSPENDED, TenantStatus.OFFBOARDING}
    assert has_place(tenant(status=status)) is (status in lives)
    if status not in lives:
        assert observed(tenant(status=status), TIER, PlaceCondition.MISSING).place is PlaceCondition.UNJUDGED


def test_a_tenant_that_moves_or_is_nowhere_has_no_place_to_judge():
    assert not has_place(tenant(moving=True))
    assert not has_place(tenant(placement=None))


def test_a_page_has_its_end_and_not_its_beginning():
    page = Look(after=UUID(int=1), until=UUID(int=3), digest="")
    assert [page.covers(UUID(int=number)) for number in range(5)] == [False, False, True, True, False]
    assert Look(digest="").covers(UUID(int=0))
    assert Look(digest="").covers(UUID(int=2**128 - 1))


def test_a_report_survives_the_way():
    report = Report(agrees=False, follows=True, lag_seconds=0.5, tenants=(line(),))
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(report))), Report) == report
