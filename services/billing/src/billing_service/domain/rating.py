"""Rating: a pure function of catalogue version, subscription, usage and period.

One line a charge and one rounding a line, half away from zero; the steps inside a line stay exact and are kept as its
explanation. A maximum adds a discount line, a minimum a true-up line, so that the lines always sum to the invoice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing_service.domain.errors import UnbillableMeterError
from billing_service.domain.money import allocate, exact, minor_unit, plain, round_amount
from billing_service.domain.periods import Period
from billing_service.domain.plans import Charge, Plan
from billing_service.domain.prices import FlatPrice, Part, Price, billable_quantity, price_quantity
from billing_service.domain.usage import NO_USAGE, MeterUsage

ZERO = Decimal(0)
ONE = Decimal(1)


class LineKind(StrEnum):
    CHARGE = "charge"
    MAXIMUM = "maximum"
    MINIMUM = "minimum"


class Skip(StrEnum):
    """Why a period gets no invoice."""

    NO_USAGE = "no_usage"
    ZERO_TOTAL = "zero_total"
    WRITTEN_OFF = "written_off"


@dataclass(frozen=True, slots=True)
class Line:
    """One invoice line; amounts in major units of the invoice's currency, `exact_amount` before rounding.

    `period` is there where it is not the invoice's: the line adjusts what was billed for that one.
    """

    charge: str
    kind: LineKind
    description: str
    quantity: Decimal | None
    unit_amount: Decimal | None
    exact_amount: Decimal
    amount: Decimal
    formula: str
    inputs: dict[str, Any]
    usage: MeterUsage | None = None
    period: Period | None = None


@dataclass(frozen=True, slots=True)
class Rated:
    """The lines of one period and what becomes of it: an invoice, unless `skip` says why not."""

    currency: str
    lines: tuple[Line, ...]
    total: Decimal
    skip: Skip | None = None


@dataclass(frozen=True, slots=True)
class PricedPart:
    """A step of a price with its share of the rounded amount."""

    part: Part
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Priced:
    """A quantity under a price: rounded `amount`, and the parts that sum to it."""

    amount: Decimal
    exact_amount: Decimal
    parts: tuple[PricedPart, ...]


@exact
def rate(
    plan: Plan, currency: str, period: Period, quantities: Mapping[str, Decimal], usage: Mapping[str, MeterUsage]
) -> Rated:
    """The invoice of `plan` for `period`.

    `usage` is by meter, a meter that counted nothing may be absent. Raises UnsupportedPriceError where the plan has no
    price in `currency`, and UnbillableMeterError for a meter that neither counts nor sums. A partial period takes its
    share of fixed amounts, agreed quantities, free units and minimums; usage itself is not prorated.
    """
    if plan.skip_without_usage and not any(usage.get(meter, NO_USAGE).count for meter in plan.meters):
        return Rated(currency, (), round_amount(ZERO, currency), Skip.NO_USAGE)
    lines = [line for charge in plan.charges for line in charge_lines(charge, currency, period, quantities, usage)]
    total = round_amount(sum((line.amount for line in lines), ZERO), currency)
    skip = Skip.ZERO_TOTAL if total == 0 and plan.zero_invoices == "skip" else None
    return Rated(currency, tuple(lines), total, skip)


@exact
def preview(price: Price, currency: str, quantity: Decimal) -> Priced:
    """What `quantity` costs in a whole period, with maximum and minimum as parts of their own."""
    parts = price_quantity(price, billable_quantity(price, quantity))
    exact_amount = sum((part.amount for part in parts), ZERO)
    amount = round_amount(exact_amount, currency)
    if all(part.amount >= 0 for part in parts):
        shares = allocate(amount, [part.amount for part in parts], currency)
    else:
        shares = [round_amount(part.amount, currency) for part in parts]
        shares[-1] += amount - sum(shares, ZERO)
    priced = [PricedPart(part, share) for part, share in zip(parts, shares, strict=True)]
    for kind, change, exact_change in _bounds(price, currency, amount, exact_amount, ONE):
        priced.append(PricedPart(Part(kind.value, None, None, exact_change, plain(exact_change)), change))
        amount += change
        exact_amount += exact_change
    return Priced(amount, exact_amount, tuple(priced))


@exact
def charge_lines(
    charge: Charge,
    currency: str,
    period: Period,
    quantities: Mapping[str, Decimal],
    usage: Mapping[str, MeterUsage],
) -> list[Line]:
    """The line of one charge, and those of its maximum and minimum where they change it; raises as `rate`."""
    price = charge.price_in(currency)
    counted = usage.get(charge.meter, NO_USAGE) if charge.meter is not None else None
    if counted is not None:
        if counted.unbillable is not None:
            raise UnbillableMeterError(
                f"charge {charge.code!r}: meter {charge.meter!r} has the aggregation {counted.unbillable},"
                " of which no quantity can be billed; count and sum have one"
            )
        quantity = counted.quantity
    elif charge.quantity is not None:
        quantity = quantities.get(charge.quantity, ZERO)
    else:
        quantity = ONE
    share = period.share
    # Free units are granted by the share of the period; an agreed quantity is prorated as a whole instead.
    free_share = share if counted is not None else ONE
    parts = price_quantity(price, billable_quantity(price, quantity, free_share))
    exact_amount = sum((part.amount for part in parts), ZERO)
    formula = " + ".join(part.formula for part in parts) or "0"
    if price.free_units:
        formula += f" ({plain(quantity)} less {plain(price.free_units * free_share)} free)"
    fixed = counted is None or isinstance(price, FlatPrice)
    if fixed and share != 1:
        exact_amount = exact_amount * period.days_used / period.days_whole
        formula = f"({formula}) * {period.days_used}/{period.days_whole} days"
    amount = round_amount(exact_amount, currency)
    line = Line(
        charge=charge.code,
        kind=LineKind.CHARGE,
        description=charge.description or charge.code,
        quantity=None if isinstance(price, FlatPrice) else quantity,
        unit_amount=parts[0].unit_amount if len(parts) == 1 else None,
        exact_amount=exact_amount,
        amount=amount,
        formula=formula,
        inputs=_inputs(charge, price, period, quantity),
        usage=counted,
    )
    lines = [line]
    for kind, change, exact_change in _bounds(price, currency, amount, exact_amount, share):
        lines.append(_bound_line(line, kind, change, exact_change))
        amount += change
    return lines


def _bounds(
    price: Price, currency: str, amount: Decimal, exact_amount: Decimal, share: Decimal
) -> list[tuple[LineKind, Decimal, Decimal]]:
    """What maximum and minimum add to an `amount` rounded from `exact_amount`: (kind, rounded change, exact change)."""
    changes: list[tuple[LineKind, Decimal, Decimal]] = []
    for kind, bound in (
        (LineKind.MAXIMUM, price.maximum),
        (LineKind.MINIMUM, None if price.minimum is None else price.minimum * share),
    ):
        if bound is None:
            continue
        change = round_amount(bound, currency) - amount
        if (change < 0) if kind is LineKind.MAXIMUM else (change > 0):
            changes.append((kind, change, bound - exact_amount))
            amount, exact_amount = amount + change, bound
    return changes


def _bound_line(charged: Line, kind: LineKind, change: Decimal, exact_change: Decimal) -> Line:
    word = "maximum" if kind is LineKind.MAXIMUM else "minimum"
    return Line(
        charge=charged.charge,
        kind=kind,
        description=f"{charged.description}: {word}",
        quantity=None,
        unit_amount=None,
        exact_amount=exact_change,
        amount=change,
        formula=f"{word} less {plain(charged.amount)}",
        inputs=charged.inputs,
    )


def _inputs(charge: Charge, price: Price, period: Period, quantity: Decimal) -> dict[str, Any]:
    """Everything, besides the usage version, that is needed to compute the line again."""
    inputs: dict[str, Any] = {
        "price": price.model_dump(mode="json", exclude_defaults=True) | {"model": price.model},
        "quantity": plain(quantity),
        "days_used": period.days_used,
        "days_whole": period.days_whole,
    }
    if charge.meter is not None:
        inputs["meter"] = charge.meter
    return inputs


def in_minor_units(amount: Decimal, currency: str) -> str:
    """`amount` as it is written on an invoice ("12.50", or "13" in a currency without minor unit)."""
    return format(amount.quantize(minor_unit(currency)), "f")
