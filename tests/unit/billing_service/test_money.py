from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_service.domain.errors import UnknownCurrencyError
from billing_service.domain.money import EXACT, allocate, minor_unit, plain, round_amount
from billing_service.domain.numbers import parse_number

CURRENCIES = st.sampled_from(["USD", "JPY", "KWD", "UYW", "EUR"])
AMOUNTS = st.decimals(min_value=-(10**20), max_value=10**20, allow_nan=False, allow_infinity=False, places=12)


@pytest.mark.parametrize(
    ("amount", "currency", "rounded"),
    [
        ("-10.125", "USD", "-10.13"),
        ("10.125", "USD", "10.13"),
        ("10.1249999999", "USD", "10.12"),
        ("99.5", "JPY", "100"),
        ("-100.5", "JPY", "-101"),
        ("0.0005", "KWD", "0.001"),
        ("12345678901234567890123456789.005", "USD", "12345678901234567890123456789.01"),
    ],
)
def test_rounding_is_half_away_from_zero(amount: str, currency: str, rounded: str) -> None:
    assert str(round_amount(Decimal(amount), currency)) == rounded


@given(AMOUNTS, CURRENCIES)
def test_rounding_is_odd_stable_and_near(amount: Decimal, currency: str) -> None:
    rounded = round_amount(amount, currency)
    assert rounded == -round_amount(-amount, currency)
    assert rounded == round_amount(rounded, currency)
    assert abs(rounded - amount) * 2 <= minor_unit(currency)


@pytest.mark.parametrize("currency", ["usd", "XXX", "", "EURO", "BTC"])
def test_a_currency_outside_the_table_is_refused(currency: str) -> None:
    with pytest.raises(UnknownCurrencyError):
        round_amount(Decimal(1), currency)


@pytest.mark.parametrize(
    ("total", "weights", "currency", "parts"),
    [
        ("100.00", "1 1 1", "USD", "33.34 33.33 33.33"),
        ("100.00", "1 2 3", "USD", "16.67 33.33 50.00"),
        ("5", "1 1 1", "JPY", "2 2 1"),
        ("-0.05", "1 1", "USD", "-0.03 -0.02"),
        ("7.00", "0 0", "USD", "7.00 0"),
    ],
)
def test_allocation_by_largest_remainder(total: str, weights: str, currency: str, parts: str) -> None:
    split = allocate(Decimal(total), [Decimal(weight) for weight in weights.split()], currency)
    assert split == [Decimal(part) for part in parts.split()]


@given(
    st.integers(-(10**30), 10**30),
    st.lists(st.decimals(min_value=0, max_value=10**18, places=9), min_size=1, max_size=20),
    CURRENCIES,
)
def test_parts_sum_to_the_whole_and_stay_within_one_unit(units: int, weights: list[Decimal], currency: str) -> None:
    unit = minor_unit(currency)
    exponent = unit.as_tuple().exponent
    assert isinstance(exponent, int)
    parts = [Fraction(part) for part in allocate(Decimal(units).scaleb(exponent, EXACT), weights, currency)]
    total = units * Fraction(unit)
    assert sum(parts) == total
    whole = sum(map(Fraction, weights))
    if whole:
        for part, weight in zip(parts, weights, strict=True):
            assert (part / Fraction(unit)).denominator == 1
            assert abs(part - total * Fraction(weight) / whole) < unit


@pytest.mark.parametrize("value", [1.5, True, None, "1e3", "NaN", "Infinity", " 1", "1.", ".5", "+1", "١", "1" * 39])  # noqa: RUF001
def test_numbers_that_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="decimal"):
        parse_number(value)


@pytest.mark.parametrize("value", ["0", "-0.5", "12.50", "0.000000000000000001", "9" * 38, 7])
def test_numbers_that_are_taken(value: object) -> None:
    assert parse_number(value) == Decimal(str(value))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=-(10**19), max_value=10**19))
def test_plain_text_keeps_the_number(number: Decimal) -> None:
    assert Decimal(plain(number)) == number
    assert "E" not in plain(number)
