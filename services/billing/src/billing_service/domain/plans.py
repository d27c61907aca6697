"""Plan documents: what is charged, in which currencies, how often. A version of a plan never changes."""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from billing_service.domain.errors import UnsupportedPriceError
from billing_service.domain.money import minor_unit
from billing_service.domain.periods import Interval
from billing_service.domain.prices import FlatPrice, Price
from billing_service.domain.texts import Line
from tenantry.entitlements import InvalidEntitlements, parse_entitlements

Code = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


MAX_ENTITLEMENTS = 200


def _readable(document: dict[str, Any]) -> dict[str, Any]:
    if len(document) > MAX_ENTITLEMENTS:
        raise ValueError(f"at most {MAX_ENTITLEMENTS} features")
    try:
        parse_entitlements(document, of="plan")
    except InvalidEntitlements as error:
        raise ValueError(str(error)) from None
    return document


class Charge(BaseModel):
    """One thing a plan charges for: a meter's usage, an agreed quantity (seats), or a fixed amount (neither)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: Code
    description: Line = ""
    meter: Code | None = None
    quantity: Code | None = None
    pay: Literal["in_arrears"] = "in_arrears"
    price: Price | dict[Currency, Price]

    @model_validator(mode="after")
    def _one_source_of_quantity(self) -> Self:
        if self.meter is not None and self.quantity is not None:
            raise ValueError("a charge has a meter or a quantity, not both")
        if self.meter is None and self.quantity is None:
            prices = self.price.values() if isinstance(self.price, dict) else (self.price,)
            if any(not isinstance(price, FlatPrice) for price in prices):
                raise ValueError("a charge without meter and quantity can only have a flat price")
        return self

    def price_in(self, currency: str) -> Price:
        """The price in `currency`; a single price document holds in every currency of its plan."""
        if not isinstance(self.price, dict):
            return self.price
        try:
            return self.price[currency]
        except KeyError:
            raise UnsupportedPriceError(f"charge {self.code!r} has no price in {currency}") from None


class Plan(BaseModel):
    """The content of one version of a plan.

    `zero_invoices` decides about a period whose total is zero. `skip_without_usage` leaves out, flat fees
    included, a period in which none of the plan's meters counted anything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Line = ""
    currencies: Annotated[tuple[Currency, ...], Field(min_length=1, max_length=50)]
    interval: Interval = Interval.MONTH
    zero_invoices: Literal["skip", "issue"] = "issue"
    skip_without_usage: bool = False
    charges: Annotated[tuple[Charge, ...], Field(min_length=1, max_length=200)]
    entitlements: Annotated[dict[str, Any], AfterValidator(_readable)] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for currency in self.currencies:
            minor_unit(currency)
            for charge in self.charges:
                charge.price_in(currency)
        codes = [charge.code for charge in self.charges]
        if len(set(codes)) != len(codes):
            raise ValueError("charge codes must differ")
        if self.skip_without_usage and not self.meters:
            raise ValueError("skip_without_usage needs a charge with a meter")
        return self

    @property
    def meters(self) -> frozenset[str]:
        return frozenset(charge.meter for charge in self.charges if charge.meter is not None)

    def digest(self) -> str:
        """Equal for equal content, whatever order its keys came in and however its numbers were written."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
