"""A line computed again from its inputs, and what its evidence makes of it."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_service.domain.adjustments import Booked, adjustments
from billing_service.domain.periods import Period
from billing_service.domain.plans import Plan
from billing_service.domain.rating import Line, Rated, rate
from billing_service.domain.usage import MeterUsage
from billing_service.domain.verification import Amounts, Counted, Verdict, judge, recomputed

MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC), 31, 31)
HALF = Period(datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 4, 16, tzinfo=UTC), 15, 30)
CHARGES: list[dict[str, Any]] = [
    {"code": "base", "price": {"model": "flat", "amount": "20.01"}},
    {"code": "seats", "quantity": "seats", "price": {"model": "per_unit", "unit_amount": "7.333", "minimum": "9"}},
    {"code": "calls", "meter": "calls", "price": {"model": "per_unit", "unit_amount": "0.0125", "free_units": "7"}},
    {
        "code": "bytes",
        "meter": "bytes",
        "price": {
            "model": "graduated",
            "maximum": "30",
            "minimum": "5",
            "tiers": [{"up_to": "100", "unit_amount": "0.05"}, {"up_to": None, "unit_amount": "0.0071"}],
        },
    },
]


def rated(period: Period, calls: int, size: Decimal) -> Rated:
    plan = Plan.model_validate({"currencies": ["USD"], "charges": CHARGES})
    usage = {
        "calls": MeterUsage(Decimal(calls), None, 1, "aa"),
        "bytes": MeterUsage(Decimal(calls), size, 1, "bb"),
    }
    return rate(plan, "USD", period, {"seats": Decimal(3)}, usage)


def again(line: Line, period: Period) -> Amounts:
    return recomputed(line.charge, line.kind, line.inputs, "USD", period)


@given(
    st.sampled_from([MARCH, HALF]),
    st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)),
    st.tuples(st.decimals(0, 100_000, places=3), st.decimals(0, 100_000, places=3)),
)
def test_every_line_is_what_its_inputs_say(
    period: Period, calls: tuple[int, int], sizes: tuple[Decimal, Decimal]
) -> None:
    first = rated(period, calls[0], sizes[0])
    booked = {
        (line.charge, line.kind): Booked(line.description, line.quantity, line.exact_amount, line.amount)
        for line in first.lines
    }
    late = adjustments(period, rated(period, calls[1], sizes[1]), booked)
    for line in (*first.lines, *late):
        assert again(line, period) == Amounts(line.exact_amount, line.amount)


def test_a_line_of_other_inputs_is_another() -> None:
    line = rated(MARCH, 100, Decimal(500)).lines[2]
    assert again(line, MARCH).amount == Decimal("1.16")
    line.inputs["quantity"] = "180"
    assert again(line, MARCH).amount == Decimal("2.16")


@pytest.mark.parametrize(
    ("known", "verdict"),
    [
        ({}, Verdict.EQUAL),
        ({"quantity": None, "counted": None, "erased": True}, Verdict.EQUAL),
        ({"recomputes": False}, Verdict.DIFFERS),
        ({"recomputes": False, "erased": True}, Verdict.DIFFERS),
        ({"counted": Counted(Decimal(5), Decimal(4))}, Verdict.CHANGED_SINCE),
        ({"counted": Counted(Decimal(4), Decimal(5))}, Verdict.DIFFERS),
        ({"counted": Counted(Decimal(4), Decimal(4)), "expired": True}, Verdict.EVIDENCE_EXPIRED),
        ({"expired": True}, Verdict.EVIDENCE_EXPIRED),
        ({"counted": None}, Verdict.EVIDENCE_EXPIRED),
        ({"expired": True, "erased": True}, Verdict.EVIDENCE_ERASED),
    ],
)
def test_verdicts(known: dict[str, Any], verdict: Verdict) -> None:
    five = Decimal(5)
    right: dict[str, Any] = {
        "recomputes": True,
        "quantity": five,
        "counted": Counted(five, five),
        "expired": False,
        "erased": False,
    }
    assert judge(**(right | known)) is verdict


def test_an_invoice_is_what_its_worst_line_is() -> None:
    assert max(Verdict, key=lambda each: each.rank) is Verdict.DIFFERS
    assert min(Verdict, key=lambda each: each.rank) is Verdict.EQUAL
