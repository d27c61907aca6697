"""Whether a line is what its inputs and its usage make of it (rule 22). Pure: the caller has found the evidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from pydantic import TypeAdapter

from billing_service.domain.money import exact
from billing_service.domain.periods import Period
from billing_service.domain.plans import Charge
from billing_service.domain.prices import Price
from billing_service.domain.rating import ZERO, LineKind, charge_lines
from billing_service.domain.usage import MeterUsage

_read_price = TypeAdapter[Price](Price).validate_python
_AGREED: Final = "agreed"


class Verdict(StrEnum):
    """The worst last: an invoice is what its worst line is."""

    EQUAL = "equal"
    CHANGED_SINCE = "changed_since"
    """Right as it was billed; corrections and late usage have changed what it is about since."""
    EVIDENCE_EXPIRED = "evidence_expired"
    EVIDENCE_ERASED = "evidence_erased"
    DIFFERS = "differs"

    @property
    def rank(self) -> int:
        return list(Verdict).index(self)


@dataclass(frozen=True, slots=True)
class Amounts:
    exact_amount: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Counted:
    """The quantity that raw events come to: at the cut of the invoice, and now."""

    at_cut: Decimal
    now: Decimal


@exact
def recomputed(charge: str, kind: LineKind, inputs: Mapping[str, Any], currency: str, period: Period) -> Amounts:
    """The amounts of a line from its inputs alone; `period` is the one that the line is about."""
    billed, billed_exact = (Decimal(inputs.get(name, "0")) for name in ("billed", "billed_exact"))
    amount = exact_amount = ZERO
    if "price" in inputs:
        quantity = Decimal(inputs["quantity"])
        meter = inputs.get("meter")
        share = Period(period.start, period.end, inputs["days_used"], inputs["days_whole"])
        again = Charge(
            code=charge, meter=meter, quantity=None if meter else _AGREED, price=_read_price(inputs["price"])
        )
        usage = {} if meter is None else {meter: MeterUsage(quantity, None, 0, "")}
        for line in charge_lines(again, currency, share, {_AGREED: quantity}, usage):
            if line.kind is kind:
                amount, exact_amount = line.amount, line.exact_amount
    return Amounts(exact_amount - billed_exact, amount - billed)


def judge(
    *, recomputes: bool, quantity: Decimal | None, counted: Counted | None, expired: bool, erased: bool
) -> Verdict:
    """`quantity` is the billed one of a line whose meter has evidence, None elsewhere."""
    if not recomputes:
        return Verdict.DIFFERS
    if quantity is None:
        return Verdict.EQUAL
    if erased:
        return Verdict.EVIDENCE_ERASED
    if expired or counted is None:
        return Verdict.EVIDENCE_EXPIRED
    if counted.at_cut != quantity:
        return Verdict.DIFFERS
    return Verdict.EQUAL if counted.now == quantity else Verdict.CHANGED_SINCE
