"""A closed period at its usage of now: the lines that its next invoice takes along."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from billing_service.domain.adjustments import Booked, LineKey, adjustments, closing, with_adjustments
from billing_service.domain.periods import Interval, Period, Schedule, closing_period
from billing_service.domain.plans import Plan
from billing_service.domain.rating import Line, LineKind, Rated, Skip, rate
from billing_service.domain.usage import MeterUsage

MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC), 31, 31)
BASE = {"code": "base", "price": {"model": "flat", "amount": "20.00"}}
CALLS = {"code": "calls", "meter": "requests", "price": {"model": "per_unit", "unit_amount": "0.0125"}}


def rated(calls: int, *charges: dict[str, Any], **more: Any) -> Rated:
    plan = Plan.model_validate({"currencies": ["USD"], "charges": charges or (BASE, CALLS)} | more)
    usage = {"requests": MeterUsage(Decimal(calls), None, 1, "aa")} if calls else {}
    return rate(plan, "USD", MARCH, {}, usage)


def book(*lines: Line) -> dict[LineKey, Booked]:
    found: dict[LineKey, Booked] = {}
    for line in lines:
        key = (line.charge, line.kind)
        before = found.get(key, Booked("", None, Decimal(0), Decimal(0)))
        quantity = line.quantity if before.quantity is None else before.quantity + (line.quantity or 0)
        found[key] = Booked(
            line.description, quantity, before.exact_amount + line.exact_amount, before.amount + line.amount
        )
    return found


def told(lines: list[Line]) -> list[tuple[str, str, str | None, str]]:
    return [
        (line.charge, line.kind.value, None if line.quantity is None else str(line.quantity), str(line.amount))
        for line in lines
    ]


def test_less_usage_is_a_negative_line_of_its_own_period() -> None:
    lines = adjustments(MARCH, rated(400), book(*rated(1000).lines))
    assert told(lines) == [("calls", "charge", "-600", "-7.50")]
    assert (lines[0].period, lines[0].formula) == (MARCH, "400 * 0.0125 less 12.5 billed")
    assert lines[0].usage == MeterUsage(Decimal(400), None, 1, "aa")


def test_the_same_usage_is_no_line_nor_is_usage_that_costs_nothing() -> None:
    assert adjustments(MARCH, rated(1000), book(*rated(1000).lines)) == []
    free = CALLS | {"price": {"model": "per_unit", "unit_amount": "1", "free_units": "10"}}
    assert adjustments(MARCH, rated(9, free), book(*rated(3, free).lines)) == []


def test_a_minimum_gives_way_to_usage_and_comes_back() -> None:
    floor = CALLS | {"price": {"model": "per_unit", "unit_amount": "1", "minimum": "10"}}
    low, high = book(*rated(4, floor).lines), book(*rated(25, floor).lines)
    assert told(adjustments(MARCH, rated(25, floor), low)) == [
        ("calls", "charge", "21", "21.00"),
        ("calls", "minimum", None, "-6.00"),
    ]
    assert told(adjustments(MARCH, rated(4, floor), high)) == [
        ("calls", "charge", "-21", "-21.00"),
        ("calls", "minimum", None, "6.00"),
    ]


def test_a_period_that_would_be_skipped_now_gives_back_all_of_it() -> None:
    skipping = {"skip_without_usage": True}
    lines = adjustments(MARCH, rated(0, BASE, CALLS, **skipping), book(*rated(8, BASE, CALLS, **skipping).lines))
    assert told(lines) == [("base", "charge", None, "-20.00"), ("calls", "charge", "-8", "-0.10")]


def test_adjustments_alone_make_an_invoice_of_a_skipped_period() -> None:
    late = adjustments(MARCH, rated(400), book(*rated(1000).lines))
    skipped = rated(0, BASE, CALLS, skip_without_usage=True)
    assert skipped.skip is Skip.NO_USAGE
    invoice = with_adjustments(skipped, late)
    assert (invoice.skip, str(invoice.total), told(list(invoice.lines))) == (None, "-7.50", told(late))
    assert with_adjustments(skipped, []) == skipped


PRICES = st.sampled_from(
    [
        CALLS,
        CALLS | {"price": {"model": "per_unit", "unit_amount": "0.333", "minimum": "5", "maximum": "40"}},
        CALLS
        | {
            "price": {
                "model": "graduated",
                "tiers": [{"up_to": "100", "unit_amount": "0.05"}, {"up_to": None, "unit_amount": "0.007"}],
            }
        },
    ]
)


@given(PRICES, st.lists(st.integers(0, 500), min_size=2, max_size=6))
def test_whatever_happened_between_all_lines_sum_to_the_last_rating(price: dict[str, Any], counts: list[int]) -> None:
    lines = list(rated(counts[0], BASE, price).lines)
    for count in counts[1:]:
        lines += adjustments(MARCH, rated(count, BASE, price), book(*lines))
    last = rated(counts[-1], BASE, price)
    booked = {key: each.amount for key, each in book(*lines).items() if each.amount}
    assert booked == {(line.charge, line.kind): line.amount for line in last.lines if line.amount}
    assert all(line.kind in LineKind for line in lines)


def test_what_comes_late_to_a_subscription_that_is_over_is_invoiced_above_what_is_written_off() -> None:
    late = adjustments(MARCH, rated(400), book(*rated(1000).lines))
    invoice = closing("USD", late, Decimal("7.49"))
    assert (invoice.skip, str(invoice.total), told(list(invoice.lines))) == (None, "-7.50", told(late))
    written_off = closing("USD", late, Decimal("7.50"))
    assert (written_off.skip, written_off.lines, str(written_off.total)) == (Skip.WRITTEN_OFF, (), "0.00")
    assert closing("USD", [], Decimal(0)).skip is Skip.NO_USAGE


def test_a_subscription_is_closed_once_its_last_period_is_billed_and_its_grace_has_passed() -> None:
    over = Schedule(MARCH.start, Interval.MONTH, ZoneInfo("UTC"), ends_at=datetime(2026, 4, 16, tzinfo=UTC))
    april, last = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 4, 16, tzinfo=UTC)
    hour = timedelta(hours=1)

    def at(now: datetime, *billed: datetime, schedule: Schedule = over, as_of: datetime = last) -> Period | None:
        return closing_period(schedule, now=now, as_of=as_of, grace=hour, billed=frozenset(billed))

    assert at(last + hour, MARCH.start, april) == Period(last + hour, last + hour, 0, 30)
    assert at(last + hour, MARCH.start) is None
    assert at(last, MARCH.start, april) is None
    assert at(last + hour, MARCH.start, april, as_of=april) is None
    assert at(last + hour, MARCH.start, april, schedule=replace(over, ends_at=None)) is None
