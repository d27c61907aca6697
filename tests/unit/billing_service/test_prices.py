from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from billing_service.domain.money import minor_unit
from billing_service.domain.prices import Price, billable_quantity, price_quantity
from billing_service.domain.rating import preview

PRICE: TypeAdapter[Price] = TypeAdapter(Price)
QUANTITIES = st.decimals(min_value=0, max_value=10**20, places=6)
UNIT_AMOUNTS = st.decimals(min_value=0, max_value=10**6, places=8)


@st.composite
def graduated(draw: st.DrawFn) -> dict[str, Any]:
    bounds = sorted(draw(st.sets(st.decimals(min_value=Decimal("0.001"), max_value=10**9, places=3), max_size=5)))
    return {
        "model": "graduated",
        "bill_zero": draw(st.booleans()),
        "tiers": [
            {
                "up_to": None if bound is None else str(bound),
                "unit_amount": f"{draw(UNIT_AMOUNTS):f}",
                "flat_amount": f"{draw(UNIT_AMOUNTS):f}",
            }
            for bound in [*bounds, None]
        ],
    }


@given(QUANTITIES, UNIT_AMOUNTS)
def test_per_unit_is_exact(quantity: Decimal, unit_amount: Decimal) -> None:
    price = PRICE.validate_python({"model": "per_unit", "unit_amount": f"{unit_amount:f}"})
    (part,) = price_quantity(price, quantity)
    assert Fraction(part.amount) == Fraction(quantity) * Fraction(unit_amount)


@given(graduated(), QUANTITIES)
def test_graduated_agrees_with_integrating_unit_by_tier(document: dict[str, Any], quantity: Decimal) -> None:
    """An oracle of another shape: each tier contributes the length of its overlap with (0, quantity]."""
    expected, lower = Fraction(0), Fraction(0)
    for index, tier in enumerate(document["tiers"]):
        upper = None if tier["up_to"] is None else Fraction(tier["up_to"])
        overlap = max(Fraction(quantity) - lower, Fraction(0))
        if upper is not None:
            overlap = min(overlap, upper - lower)
        expected += overlap * Fraction(tier["unit_amount"])
        if overlap > 0 or (index == 0 and document["bill_zero"]):
            expected += Fraction(tier["flat_amount"])
        lower = upper if upper is not None else lower
    parts = price_quantity(PRICE.validate_python(document), quantity)
    assert sum((Fraction(part.amount) for part in parts), Fraction(0)) == expected


@given(graduated(), QUANTITIES, QUANTITIES)
def test_more_usage_never_costs_less(document: dict[str, Any], first: Decimal, second: Decimal) -> None:
    price = PRICE.validate_python(document)
    low, high = sorted((first, second))
    assert preview(price, "USD", low).amount <= preview(price, "USD", high).amount


@given(
    graduated(),
    QUANTITIES,
    st.one_of(st.none(), UNIT_AMOUNTS),
    st.one_of(st.none(), UNIT_AMOUNTS),
    st.sampled_from(["USD", "JPY", "KWD"]),
)
def test_preview_parts_sum_to_the_amount(
    document: dict[str, Any], quantity: Decimal, minimum: Decimal | None, maximum: Decimal | None, currency: str
) -> None:
    if minimum is not None and maximum is not None and minimum > maximum:
        minimum, maximum = maximum, minimum
    document |= {"minimum": minimum, "maximum": maximum}
    priced = preview(PRICE.validate_python(document), currency, quantity)
    assert sum(Fraction(part.amount) for part in priced.parts) == Fraction(priced.amount)
    if maximum is not None:
        assert priced.amount <= maximum + minor_unit(currency) / 2
    if minimum is not None:
        assert priced.amount >= minimum - minor_unit(currency) / 2


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [("0", "0"), ("10", "10"), ("10.5", "10.25"), ("100", "55"), ("100.000001", "58.0000002")],
)
def test_tier_bounds_belong_to_the_lower_tier(quantity: str, amount: str) -> None:
    price = PRICE.validate_python(
        {
            "model": "graduated",
            "bill_zero": False,
            "tiers": [
                {"up_to": "10", "unit_amount": "1"},
                {"up_to": "100", "unit_amount": "0.5"},
                {"up_to": None, "unit_amount": "0.2", "flat_amount": "3"},
            ],
        }
    )
    assert sum(part.amount for part in price_quantity(price, Decimal(quantity))) == Decimal(amount)


@pytest.mark.parametrize(("bill_zero", "amount"), [(True, "5"), (False, "0")])
def test_bill_zero_decides_the_flat_part_at_zero(bill_zero: bool, amount: str) -> None:
    tiers = [{"up_to": "1", "flat_amount": "5"}, {"up_to": None, "flat_amount": "9"}]
    price = PRICE.validate_python({"model": "graduated", "bill_zero": bill_zero, "tiers": tiers})
    assert preview(price, "USD", Decimal(0)).amount == Decimal(amount)


def test_free_units_come_first_and_never_below_zero() -> None:
    price = PRICE.validate_python({"model": "per_unit", "unit_amount": "2", "free_units": "10"})
    assert preview(price, "USD", Decimal(15)).amount == Decimal(10)
    assert preview(price, "USD", Decimal(4)).amount == 0
    assert billable_quantity(price, Decimal(-4)) == 0


def test_maximum_is_a_discount_and_minimum_a_true_up() -> None:
    price = PRICE.validate_python({"model": "per_unit", "unit_amount": "0.333", "maximum": "10.005", "minimum": "2"})
    capped = preview(price, "USD", Decimal(100))
    assert [(str(part.amount), part.part.description) for part in capped.parts] == [
        ("33.30", "per unit"),
        ("-23.29", "maximum"),
    ]
    raised = preview(price, "USD", Decimal(1))
    assert [str(part.amount) for part in raised.parts] == ["0.33", "1.67"]
    assert raised.exact_amount == 2


@pytest.mark.parametrize(
    "document",
    [
        {"model": "flat"},
        {"model": "flat", "amount": 20.5},
        {"model": "flat", "amount": "20", "colour": "red"},
        {"model": "per_unit", "unit_amount": "1e3"},
        {"model": "per_unit", "unit_amount": "1", "free_units": "-1"},
        {"model": "per_unit", "unit_amount": "1", "minimum": "5", "maximum": "4"},
        {"model": "graduated", "tiers": []},
        {"model": "graduated", "tiers": [{"up_to": "5", "unit_amount": "1"}]},
        {"model": "graduated", "tiers": [{"up_to": None}, {"up_to": None}]},
        {"model": "graduated", "tiers": [{"up_to": "5"}, {"up_to": "5"}, {"up_to": None}]},
        {"model": "graduated", "tiers": [{"up_to": "0"}, {"up_to": None}]},
        {"model": "graduated", "tiers": [{"up_to": None, "flat_amount": "1"}]},
        {"model": "surprise", "amount": "1"},
        "flat",
    ],
)
def test_price_documents_that_are_refused(document: object) -> None:
    with pytest.raises(ValidationError):
        PRICE.validate_python(document)
