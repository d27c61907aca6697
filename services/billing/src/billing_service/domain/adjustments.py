"""Late usage: what a closed period would cost now, less what has been billed for it (rules 15 and 25)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from billing_service.domain.money import exact, plain, round_amount
from billing_service.domain.periods import Period
from billing_service.domain.rating import ZERO, Line, LineKind, Rated, Skip

LineKey = tuple[str, LineKind]
"""What stays the same of a line however often its period is rated: its charge and its kind."""


@dataclass(frozen=True, slots=True)
class Booked:
    """What all lines of one key have billed for a period so far."""

    description: str
    quantity: Decimal | None
    exact_amount: Decimal
    amount: Decimal


@exact
def adjustments(period: Period, rated: Rated, booked: Mapping[LineKey, Booked]) -> list[Line]:
    """The lines that turn what is booked for `period` into what it is rated at now; they name it, and may be negative.

    None where no amount differs: usage that costs nothing more, as inside of free units, is left unsaid.
    """
    target: Sequence[Line] = () if rated.skip else rated.lines
    lines: list[Line] = []
    for line in target:
        before = booked.get((line.charge, line.kind), Booked("", None, ZERO, ZERO))
        if line.amount != before.amount:
            lines.append(_difference(line, before, period))
    rest = booked.keys() - {(line.charge, line.kind) for line in target}
    lines.extend(_withdrawn(key, booked[key], period) for key in sorted(rest) if booked[key].amount)
    return lines


@exact
def with_adjustments(rated: Rated, late: Sequence[Line]) -> Rated:
    """An invoice that takes `late` along; they alone make one where the period itself is skipped."""
    if not late:
        return rated
    own = () if rated.skip is Skip.NO_USAGE else rated.lines
    total = sum((line.amount for line in late), rated.total)
    return replace(rated, lines=(*own, *late), total=total, skip=None)


@exact
def closing(currency: str, late: Sequence[Line], write_off: Decimal) -> Rated:
    """The invoice of a subscription that is over: what came late, unless it is as little as `write_off`, either way."""
    total = round_amount(sum((line.amount for line in late), ZERO), currency)
    if abs(total) <= write_off:
        return Rated(currency, (), round_amount(ZERO, currency), Skip.WRITTEN_OFF if late else Skip.NO_USAGE)
    return Rated(currency, tuple(late), total)


def _difference(line: Line, before: Booked, period: Period) -> Line:
    quantity = line.quantity
    if quantity is not None and before.quantity is not None:
        quantity -= before.quantity
    return replace(
        line,
        quantity=quantity,
        unit_amount=None,
        exact_amount=line.exact_amount - before.exact_amount,
        amount=line.amount - before.amount,
        formula=f"{line.formula} less {plain(before.exact_amount)} billed",
        inputs=line.inputs | {"billed": plain(before.amount), "billed_exact": plain(before.exact_amount)},
        period=period,
    )


def _withdrawn(key: LineKey, before: Booked, period: Period) -> Line:
    """Of a line that the period would not have now."""
    return Line(
        charge=key[0],
        kind=key[1],
        description=before.description,
        quantity=None if before.quantity is None else -before.quantity,
        unit_amount=None,
        exact_amount=-before.exact_amount,
        amount=-before.amount,
        formula=f"0 less {plain(before.exact_amount)} billed",
        inputs={"billed": plain(before.amount), "billed_exact": plain(before.exact_amount)},
        period=period,
    )
