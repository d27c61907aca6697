from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from billing_service.domain.errors import UnbillableMeterError, UnsupportedPriceError
from billing_service.domain.periods import Period
from billing_service.domain.plans import Plan
from billing_service.domain.rating import LineKind, Skip, rate
from billing_service.domain.usage import MeterUsage

MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC), 31, 31)
HALF_APRIL = Period(datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 4, 16, tzinfo=UTC), 15, 30)


def used(count: str, total: str | None = None) -> MeterUsage:
    return MeterUsage(Decimal(count), None if total is None else Decimal(total), 1, "aa")


def plan(*charges: dict[str, Any], **more: Any) -> Plan:
    return Plan.model_validate({"currencies": ["USD"], "charges": charges} | more)


BASE = {"code": "base", "price": {"model": "flat", "amount": "20.00"}}
CALLS = {"code": "calls", "meter": "requests", "price": {"model": "per_unit", "unit_amount": "0.0125"}}
SEATS = {"code": "seats", "quantity": "seats", "price": {"model": "per_unit", "unit_amount": "7"}}


def test_lines_are_rounded_one_by_one_and_sum_to_the_total() -> None:
    rated = rate(plan(BASE, CALLS, SEATS), "USD", MARCH, {"seats": Decimal(3)}, {"requests": used("101")})
    assert [(line.charge, str(line.amount)) for line in rated.lines] == [
        ("base", "20.00"),
        ("calls", "1.26"),
        ("seats", "21.00"),
    ]
    assert (str(rated.total), rated.skip) == ("42.26", None)
    calls = rated.lines[1]
    assert (calls.exact_amount, calls.formula) == (Decimal("1.2625"), "101 * 0.0125")
    assert calls.usage == used("101")
    assert calls.inputs["price"] == {"model": "per_unit", "unit_amount": "0.0125"}


def test_a_meter_with_values_is_billed_by_its_sum() -> None:
    rated = rate(plan(CALLS), "USD", MARCH, {}, {"requests": used("3", "1000.5")})
    assert rated.lines[0].quantity == Decimal("1000.5")
    assert str(rated.total) == "12.51"


def test_a_meter_of_which_no_quantity_can_be_made_is_refused() -> None:
    usage = {"requests": MeterUsage(Decimal(3), None, 1, "aa", "max")}
    with pytest.raises(UnbillableMeterError, match=r"'requests' has the aggregation max"):
        rate(plan(BASE, CALLS), "USD", MARCH, {}, usage)
    assert rate(plan(BASE), "USD", MARCH, {}, usage).total == Decimal("20.00")  # no charge is on that meter


def test_a_partial_period_prorates_fixed_amounts_and_free_units_but_not_usage() -> None:
    calls = CALLS | {"price": {"model": "per_unit", "unit_amount": "1", "free_units": "10", "minimum": "100"}}
    rated = rate(plan(BASE, calls, SEATS), "USD", HALF_APRIL, {"seats": Decimal(1)}, {"requests": used("25")})
    amounts = {(line.charge, line.kind): str(line.amount) for line in rated.lines}
    assert amounts == {
        ("base", LineKind.CHARGE): "10.00",
        ("calls", LineKind.CHARGE): "20.00",
        ("calls", LineKind.MINIMUM): "30.00",
        ("seats", LineKind.CHARGE): "3.50",
    }


def test_skipping() -> None:
    metered = plan(BASE, CALLS, skip_without_usage=True)
    assert rate(metered, "USD", MARCH, {}, {}).skip is Skip.NO_USAGE
    assert rate(metered, "USD", MARCH, {}, {"requests": used("0")}).skip is Skip.NO_USAGE
    assert rate(metered, "USD", MARCH, {}, {"requests": used("1")}).skip is None
    assert rate(plan(CALLS, zero_invoices="skip"), "USD", MARCH, {}, {}).skip is Skip.ZERO_TOTAL
    assert rate(plan(CALLS), "USD", MARCH, {}, {}).skip is None


def test_a_sum_beyond_28_digits_stays_exact() -> None:
    """The default decimal context would round this without a word."""
    quantity = "12345678901234567890123456789012.345678"
    rated = rate(plan(CALLS), "USD", MARCH, {}, {"requests": used("1", quantity)})
    assert Fraction(rated.lines[0].exact_amount) == Fraction(quantity) * Fraction("0.0125")


def test_prices_by_currency() -> None:
    prices = {"USD": {"model": "flat", "amount": "10"}, "JPY": {"model": "flat", "amount": "1500"}}
    two = plan({"code": "base", "price": prices}, currencies=["USD", "JPY"])
    assert str(rate(two, "JPY", MARCH, {}, {}).total) == "1500"
    with pytest.raises(UnsupportedPriceError):
        rate(two, "EUR", MARCH, {}, {})


@given(
    st.decimals(min_value=0, max_value=10**15, places=3),
    st.decimals(min_value=0, max_value=1000, places=6),
    st.integers(1, 31),
)
def test_totals_are_the_sum_of_lines(quantity: Decimal, unit_amount: Decimal, days: int) -> None:
    period = Period(MARCH.start, MARCH.end, days, 31)
    calls = CALLS | {"price": {"model": "per_unit", "unit_amount": unit_amount, "minimum": "50", "maximum": "90"}}
    rated = rate(plan(BASE, calls), "USD", period, {}, {"requests": used("1", str(quantity))})
    assert rated.total == sum(line.amount for line in rated.lines)
    assert rated.total == rated.total.quantize(Decimal("0.01"))


def test_equal_content_has_equal_digests() -> None:
    respelled = BASE | {"price": {"amount": "20", "model": "flat"}, "description": ""}
    assert plan(BASE).digest() == plan(respelled).digest()
    assert plan(BASE).digest() != plan(BASE | {"price": {"model": "flat", "amount": "20.01"}}).digest()


@pytest.mark.parametrize(
    "document",
    [
        {"currencies": [], "charges": [BASE]},
        {"currencies": ["XXX"], "charges": [BASE]},
        {"currencies": ["USD"], "charges": []},
        {"currencies": ["USD"], "charges": [BASE, BASE]},
        {"currencies": ["USD"], "charges": [BASE | {"meter": "a", "quantity": "b"}]},
        {"currencies": ["USD"], "charges": [{"code": "x", "price": {"model": "per_unit", "unit_amount": "1"}}]},
        {"currencies": ["USD", "EUR"], "charges": [BASE | {"price": {"USD": {"model": "flat", "amount": "1"}}}]},
        {"currencies": ["USD"], "charges": [BASE], "skip_without_usage": True},
        {"currencies": ["USD"], "charges": [BASE | {"pay": "in_advance"}]},
        {"currencies": ["USD"], "charges": [BASE], "interval": "fortnight"},
    ],
)
def test_plans_that_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Plan.model_validate(document)
