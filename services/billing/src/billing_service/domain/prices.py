"""Price documents, and what a quantity costs under one.

Only upper bounds of tiers are stored: tier n covers (previous up_to, up_to]. The order of computation is free units,
price, maximum, minimum (rules of counting and billing 11 to 14); nothing is rounded here.
"""

from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, Self, assert_never

from pydantic import BaseModel, ConfigDict, Field, model_validator

from billing_service.domain.money import exact, plain
from billing_service.domain.numbers import Amount, DecimalText

ZERO = Decimal(0)


class _Price(BaseModel):
    """What every model of price may say besides its own part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    free_units: Amount = ZERO
    minimum: Amount | None = None
    maximum: Amount | None = None
    bill_zero: bool | None = None

    @model_validator(mode="after")
    def _minimum_below_maximum(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        return self


class FlatPrice(_Price):
    """One amount a period. Due without any usage too, unless `bill_zero` is false."""

    model: Literal["flat"]
    amount: DecimalText


class PerUnitPrice(_Price):
    model: Literal["per_unit"]
    unit_amount: DecimalText


class Tier(BaseModel):
    """The units up to and including `up_to` (null = all the rest), and a flat amount due once it is entered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    up_to: Annotated[DecimalText, Field(gt=0)] | None
    unit_amount: DecimalText = ZERO
    flat_amount: DecimalText = ZERO


class GraduatedPrice(_Price):
    """Every unit at the price of the tier that it falls in."""

    model: Literal["graduated"]
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _tiers_cover_every_quantity(self) -> Self:
        bounds = [tier.up_to for tier in self.tiers]
        if bounds[-1] is not None:
            raise ValueError("the last tier must have up_to null, so that every quantity has a price")
        closed = [bound for bound in bounds[:-1] if bound is not None]
        if len(closed) != len(bounds) - 1:
            raise ValueError("only the last tier may have up_to null")
        if any(upper <= lower for lower, upper in pairwise(closed)):
            raise ValueError("up_to must rise from tier to tier")
        if self.bill_zero is None and any(tier.flat_amount for tier in self.tiers):
            raise ValueError("bill_zero must be said where a tier has a flat amount")
        return self


Price = Annotated[FlatPrice | PerUnitPrice | GraduatedPrice, Field(discriminator="model")]


class Part(NamedTuple):
    """One step of a price: `amount` is exact, in major units; `tier` counts from 1."""

    description: str
    quantity: Decimal | None
    unit_amount: Decimal | None
    amount: Decimal
    formula: str
    tier: int | None = None


@exact
def billable_quantity(price: Price, quantity: Decimal, share: Decimal = Decimal(1)) -> Decimal:
    """What is left after the free units, of which a partial period grants its `share`.

    A negative quantity (corrections that outweigh the usage) costs nothing; it is never a credit by itself.
    """
    return max(quantity - price.free_units * share, ZERO)


@exact
def price_quantity(price: Price, quantity: Decimal) -> list[Part]:
    """The parts that `quantity` (free units already taken off) costs, in the order of their tiers.

    Their sum is the price before maximum and minimum. Never empty for flat and per_unit prices.
    """
    match price:
        case FlatPrice():
            due = price.amount if quantity > 0 or price.bill_zero is not False else ZERO
            return [Part("flat", None, None, due, plain(due))]
        case PerUnitPrice():
            amount = quantity * price.unit_amount
            formula = f"{plain(quantity)} * {plain(price.unit_amount)}"
            return [Part("per unit", quantity, price.unit_amount, amount, formula)]
        case GraduatedPrice():
            return _graduated(price, quantity)
        case _:
            assert_never(price)


def _graduated(price: GraduatedPrice, quantity: Decimal) -> list[Part]:
    parts: list[Part] = []
    lower = ZERO
    for number, tier in enumerate(price.tiers, start=1):
        entered = quantity > lower or (number == 1 and bool(price.bill_zero))
        if not entered:
            break
        upper = quantity if tier.up_to is None else min(quantity, tier.up_to)
        units = max(upper - lower, ZERO)
        amount = units * tier.unit_amount + tier.flat_amount
        formula = f"{plain(units)} * {plain(tier.unit_amount)}"
        if tier.flat_amount:
            formula += f" + {plain(tier.flat_amount)}"
        reach = f"above {plain(lower)}" if tier.up_to is None else f"{plain(lower)} to {plain(tier.up_to)}"
        parts.append(Part(f"tier {number} ({reach})", units, tier.unit_amount, amount, formula, number))
        if tier.up_to is None:
            break
        lower = tier.up_to
    return parts
