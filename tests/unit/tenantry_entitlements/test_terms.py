"""What tiers and plans say of features, and what a product makes of it while nothing was used."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tenantry import LocalDirectory, ManualClock, QuotaExceeded, Tier
from tenantry.entitlements import (
    Balance,
    BalanceStore,
    BillingState,
    EntitledTenants,
    Entitlements,
    InvalidEntitlements,
    PlanHeld,
    PlanStore,
    QuotaTerms,
    Source,
    Terms,
    effective,
    parse_entitlements,
    readable_entitlements,
)
from tenantry.features import FeatureOff
from tenantry.testing import TenantFactory

NOW = datetime(2026, 5, 10, 12, tzinfo=UTC)
TENANT = TenantFactory()()
FORBID = {"forbid": True}


@pytest.mark.parametrize(
    ("value", "terms"),
    [
        (True, Terms(has_access=True)),
        (False, Terms(has_access=False)),
        ("gold", Terms(has_access=True, config="gold")),
        (25, Terms(has_access=True, config=25, quota=QuotaTerms(limit=Decimal(25)))),
        ({"config": [1, 2]}, Terms(has_access=True, config=[1, 2])),
        ({"limit": None}, Terms(has_access=True, quota=QuotaTerms(limit=None))),
        (
            {"limit": "10.5", "period": "day", "alerts": ["0.8"], "hard": False, "rollover_max": "2"},
            Terms(
                has_access=True,
                quota=QuotaTerms(
                    limit=Decimal("10.5"),
                    period="day",
                    alerts=(Decimal("0.8"),),
                    hard=False,
                    rollover_max=Decimal(2),
                ),
            ),
        ),
    ],
)
def test_a_value_says_of_which_kind_it_is(value, terms):
    assert parse_entitlements({"calls": value}, of="plan") == {"calls": terms}


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        "a\x00b",
        "x" * 8_193,
        {},
        {"config": 1, "limit": 1},
        FORBID,
        {"limit": -1},
        {"limit": "NaN"},
        {"limit": True},
        {"limit": 0.5},
        {"limit": 1, "period": "decade"},
        {"limit": 1, "alerts": ["0"]},
        {"limit": 1, "alerts": ["1", "1.0"]},
        {"limit": 1, "time_zone": "Mars/Base"},
        {"limit": 1, "time_zone": "Asia/Kolkata"},
        {"limit": 1, "anchor": "2026-01-01T00:30:00Z"},
        {"limit": 1, "anchor": "2026-01-01T00:00:00Z", "anniversary": True},
        {"limit": 1, "rollover_max": 1, "period": "hour"},
        {"limit": 1, "rollover_max": 1, "refill": "day"},
        {"limit": 1, "surprise": 1},
    ],
)
def test_what_cannot_be_is_named_and_takes_nothing_else_away(value):
    document = {"sso": True, "calls": value}
    with pytest.raises(InvalidEntitlements) as refused:
        parse_entitlements(document, of="plan")
    assert [error["loc"] for error in refused.value.errors] == [["body", "entitlements", "calls"]]
    assert readable_entitlements(document, of="plan") == {"sso": Terms(has_access=True)}


def test_plans_override_the_tier_the_newest_most_and_what_the_tier_forbids_stays_forbidden():
    tier = parse_entitlements({"sso": True, "beta": FORBID, "calls": 10}, of="tier")
    older, newer = (parse_entitlements(each, of="plan") for each in ({"calls": 20, "beta": True}, {"calls": 30}))
    assert effective("sso", tier=tier, plans=[older, newer]) == (Source.TIER, Terms(has_access=True))
    found = effective("calls", tier=tier, plans=[older, newer])
    assert found is not None
    assert (found[0], found[1].config) == (Source.PLAN, 30)
    forbidden = effective("beta", tier=tier, plans=[older])
    assert forbidden is not None
    assert (forbidden[0], forbidden[1].has_access, forbidden[1].forbidden) == (Source.TIER, False, True)
    assert effective("none", tier=tier, plans=[older]) is None


class Product:
    """A process that knows a tenant, its tier and its plans."""

    def __init__(self, entitlements: dict[str, object], **options: object) -> None:
        self.directory, self.plans, self.balances = LocalDirectory.of([TENANT]), PlanStore(), BalanceStore()
        self.version = 0
        self.put_tier(entitlements)
        given = EntitledTenants(self.directory, self.plans, ManualClock(NOW)).terms
        self.entitlements = Entitlements(self.balances, lag_seconds=lambda: 0.0, given=given)

    def put_tier(self, entitlements: dict[str, object]) -> None:
        self.version += 1
        self.directory.upsert_tier(Tier(name=TENANT.tier, version=self.version, entitlements=entitlements))

    def put_plans(self, *plans: PlanHeld) -> None:
        self.version += 1
        state = BillingState(tenant_id=str(TENANT.id), subscriptions=plans)
        assert self.plans.apply(TENANT.id, state, self.version)

    def left(self, amount: int = 1) -> Decimal | None:
        return self.entitlements.check("calls", amount, tenant=TENANT).balance


def test_a_limit_of_the_tier_holds_before_anything_was_used():
    product = Product({"calls": 3, "sso": True})
    assert [product.left() for _ in range(3)] == [2, 1, 0]
    with pytest.raises(QuotaExceeded) as refused:
        product.left()
    assert refused.value.members["limit"] == 3
    assert product.entitlements.require("sso", tenant=TENANT) is None
    with pytest.raises(FeatureOff):
        product.entitlements.require("audit", tenant=TENANT)


def test_changes_of_tier_and_plan_hold_at_once():
    product = Product({"calls": 3, "seats": 5})
    assert product.entitlements.require("seats", tenant=TENANT) == 5
    product.put_tier({"calls": 1, "seats": FORBID})
    with pytest.raises(FeatureOff):
        product.entitlements.require("seats", tenant=TENANT)
    assert product.left() == 0
    product.put_plans(PlanHeld(plan="pro", plan_version=1, entitlements={"calls": 9, "seats": 50}))
    assert product.left() == 7
    with pytest.raises(FeatureOff):
        product.entitlements.require("seats", tenant=TENANT)


def test_a_plan_holds_from_its_start_up_to_its_end():
    product = Product({"calls": 3})
    over = PlanHeld(plan="a", plan_version=1, entitlements={"calls": 7}, ends_at=NOW)
    coming = PlanHeld(plan="b", plan_version=1, entitlements={"calls": 8}, starts_at=NOW + timedelta(seconds=1))
    product.put_plans(over, coming)
    assert product.left() == 2
    product.put_plans(over, PlanHeld(plan="c", plan_version=1, entitlements={"calls": 9}, starts_at=NOW))
    assert product.left() == 7


def test_a_balance_is_what_counts_once_there_is_one_but_for_what_is_forbidden():
    product = Product({"calls": 3})
    balance = Balance(tenant_id=str(TENANT.id), feature="calls", has_access=True, hard=True, balance=Decimal(9))
    product.balances.apply(TENANT.id, "calls", balance, 1)
    assert product.left() == 8
    product.put_tier({"calls": FORBID})
    with pytest.raises(QuotaExceeded):
        product.left()


def test_a_document_without_subscriptions_is_a_plan_and_a_late_version_is_ignored():
    plans = PlanStore()
    assert plans.apply(TENANT.id, BillingState(tenant_id="t", plan="pro", entitlements={"calls": 4}), 2)
    assert not plans.apply(TENANT.id, None, 1)
    [terms] = plans.terms_at(TENANT.id, NOW)
    assert terms["calls"].config == 4
    assert plans.apply(TENANT.id, None, 3)
    assert list(plans.terms_at(TENANT.id, NOW)) == []
