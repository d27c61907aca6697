"""What a flag is for a tenant."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import LocalDirectory, ManualClock, NoTenant, Tenant, TenantClock, TenantStatus, Tier, tenant_scope, uuid7
from tenantry.config import ConfigStore, Layer, LayerDocument, Source
from tenantry.features import (
    FEATURES,
    FeatureOff,
    Features,
    Flag,
    FlagStore,
    Reason,
    Rollout,
    active_choices,
    evaluate,
    parse_setting,
    part_of,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
BOOLEAN = {"on": True, "off": False}
TENANT = UUID("01890000-0000-7000-8000-000000000001")
LAYER = Source("tenant", "x", 1)
FORCED = Source("constraint", "gold", 1)


def flag(**changes):
    values: dict[str, Any] = {"name": "f", "version": 1, "variants": BOOLEAN, "default": "off"}
    return Flag(**(values | changes))


def rollout(percentage, **changes):
    return flag(rollout=Rollout(variant="on", percentage=percentage, **changes))


def tenant(**changes):
    values: dict[str, Any] = {
        "id": uuid7(),
        "slug": "a",
        "name": "A",
        "status": TenantStatus.ACTIVE,
        "tier": "gold",
        "version": 1,
        "created_at": NOW,
    }
    return Tenant(**(values | changes))


@given(st.uuids(), st.integers(0, 10_000), st.integers(0, 10_000), st.none() | st.text(max_size=5))
def test_who_is_in_a_small_part_stays_in_a_larger_one(tenant_id, one, other, key):
    small, large = sorted((one, other))
    inside = [
        evaluate(rollout(part / 100, per_key=True), tenant_id=tenant_id, tier="t", key=key).value
        for part in (small, large)
    ]
    assert inside[0] <= inside[1]


@given(st.uuids())
def test_nobody_is_in_nothing_and_everybody_in_all(tenant_id):
    assert evaluate(rollout(0), tenant_id=tenant_id, tier="t").value is False
    assert evaluate(rollout(100), tenant_id=tenant_id, tier="t").value is True


def test_a_part_is_as_large_as_it_says_and_differs_between_flags():
    tenants = [UUID(int=number) for number in range(20_000)]
    ins = {
        name: {each for each in tenants if part_of(name, each) < 1_000}  # 10 %
        for name in ("one", "two")
    }
    for inside in ins.values():
        assert 0.09 < len(inside) / len(tenants) < 0.11
    both = len(ins["one"] & ins["two"]) / len(tenants)
    assert 0.005 < both < 0.015  # independent: 1 %


def test_parts_never_move():
    # Written down: a change of the hash would shuffle every running rollout.
    assert [part_of("f", TENANT), part_of("g", TENANT), part_of("f", TENANT, "u1")] == [7992, 4684, 9697]


def test_a_key_splits_a_tenant_only_where_the_rollout_says_so():
    keys = [str(number) for number in range(200)]
    whole = {evaluate(rollout(50), tenant_id=TENANT, tier="t", key=key).value for key in keys}
    split = {evaluate(rollout(50, per_key=True), tenant_id=TENANT, tier="t", key=key).value for key in keys}
    assert (len(whole), len(split)) == (1, 2)


@pytest.mark.parametrize(
    ("definition", "choice", "source", "value", "reason"),
    [
        (flag(), None, None, False, Reason.STATIC),
        (flag(tiers={"other": "on"}), None, None, False, Reason.DEFAULT),
        (flag(tiers={"gold": "on"}), None, None, True, Reason.TARGETING_MATCH),
        (flag(tiers={"gold": "gone"}), None, None, False, Reason.DEFAULT),
        (flag(tiers={"gold": "on"}), False, LAYER, False, Reason.TARGETING_MATCH),
        (flag(), "on", LAYER, True, Reason.TARGETING_MATCH),
        (flag(), "blue", LAYER, False, Reason.STATIC),
        (rollout(100), "blue", LAYER, True, Reason.SPLIT),
        (rollout(100), False, FORCED, False, Reason.TARGETING_MATCH),
        (flag(enabled=False, tiers={"gold": "on"}), True, LAYER, False, Reason.DISABLED),
        (flag(enabled=False), True, FORCED, True, Reason.TARGETING_MATCH),
        (flag(enabled=False), None, FORCED, False, Reason.DISABLED),
    ],
)
def test_who_decides(definition, choice, source, value, reason):
    found = evaluate(definition, tenant_id=TENANT, tier="gold", choice=choice, source=source)
    assert (found.value, found.reason) == (value, reason)
    assert (found.source is not None) is (reason is Reason.TARGETING_MATCH and choice is not None)


def test_settings_end():
    until = {"value": True, "expires_at": "2026-06-01T12:00:00Z"}
    document = {"a": until, "b": False, "c": {"value": "x"}, "d": 5, "e": {"value": True, "expires_at": "soon"}}
    noon = NOW + timedelta(hours=12)
    assert active_choices(document, NOW) == ({"a": True, "b": False, "c": "x"}, noon)
    assert active_choices(document, noon) == ({"b": False, "c": "x"}, None)
    malformed: tuple[object, ...] = (
        5,
        None,
        [],
        {},
        {"value": 1},
        {"value": True, "x": 1},
        {"value": True, "expires_at": "2026-01-01T00:00:00"},
    )
    for raw in malformed:
        with pytest.raises(ValueError):  # noqa: PT011 - the reasons are msgspec's
            parse_setting(raw)


def layer(kind, name, version, **document):
    return LayerDocument(layer=kind, name=name, namespace=FEATURES, version=version, document=document)


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture
def one():
    return tenant()


@pytest.fixture
def config():
    return ConfigStore()


@pytest.fixture
def features(one, clock, config):
    flags = FlagStore(config)
    flags.upsert(flag())
    return Features(flags, LocalDirectory.of([one], [Tier(name="gold", version=1)]), clock)


def test_an_override_gives_way_when_it_ends(features, config, one, clock):
    config.upsert(layer(Layer.TIER, "gold", 1, f=False))
    config.upsert(layer(Layer.TENANT, str(one.id), 1, f={"value": True, "expires_at": "2026-06-01T01:00:00Z"}))
    with tenant_scope(one):
        assert features.is_on("f")
        clock.advance(timedelta(minutes=59))
        assert features.is_on("f")
        clock.advance(timedelta(minutes=1))
        assert not features.is_on("f")
        assert features.evaluate("f").source.layer == "tier"


def test_an_override_ends_by_the_tenants_own_clock(features, config, one, clock):
    config.upsert(layer(Layer.TENANT, str(one.id), 1, f={"value": True, "expires_at": "2026-06-01T01:00:00Z"}))
    late = tenant(id=one.id, clock=TenantClock(id=uuid7(), now=NOW + timedelta(days=1)))
    early = tenant(id=one.id, clock=TenantClock(id=uuid7(), now=NOW - timedelta(days=1)))
    clock.advance(timedelta(minutes=5))
    assert [features.evaluate("f", tenant=each).value for each in (one, late, early, one)] == [True, False, True, True]


def test_changes_are_seen_at_once(features, config, one):
    with tenant_scope(one):
        assert not features.is_on("f")
        config.upsert(layer(Layer.TENANT, str(one.id), 1, f=True))
        assert features.is_on("f")
        features.directory.upsert_tier(Tier(name="gold", version=2, constraints={FEATURES: {"f": False}}))
        assert not features.is_on("f")
        assert features.evaluate("f").source.layer == "constraint"
        features.directory.upsert_tier(Tier(name="gold", version=3))
        assert features.is_on("f")
        features.flags.upsert(flag(version=2, enabled=False))
        assert not features.is_on("f")
        assert not features.flags.upsert(flag(version=1))
        features.flags.remove("f")
        assert features.evaluate("f") is None
        assert features.value("f", 7) == 7
        assert features.is_on("f", default=True)


def test_a_feature_is_required(features, one):
    with tenant_scope(one):
        with pytest.raises(FeatureOff) as refused:
            features.require("f")
        assert (refused.value.status, refused.value.type) == (403, "entitlement-missing")
        features.flags.upsert(flag(version=2, default="on"))
        features.require("f")
        features.require("unknown", default=True)
    with pytest.raises(NoTenant):
        features.is_on("f")
    assert features.flags.names() == ["f"]
