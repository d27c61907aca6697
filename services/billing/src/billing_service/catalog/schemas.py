"""The catalogue on the wire."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from billing_service.catalog.repository import PlanVersion
from billing_service.domain.money import plain
from billing_service.domain.numbers import Amount
from billing_service.domain.plans import Currency, Plan
from billing_service.domain.prices import Price
from billing_service.domain.rating import Priced, in_minor_units


class PlanOut(Plan):
    """A version of a plan: its content, and which version it is."""

    code: str
    version: int
    created_at: datetime

    @classmethod
    def of(cls, version: PlanVersion) -> "PlanOut":
        return cls.model_construct(
            **dict(version.plan), code=version.code, version=version.version, created_at=version.created_at
        )


class PreviewIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    currency: Currency
    price: Price
    quantity: Amount


class PreviewLine(BaseModel):
    description: str
    quantity: str | None
    unit_amount: str | None
    amount: str
    tier: int | None = None


class PreviewOut(BaseModel):
    """`amount` is the sum of the lines; `exact_amount` is what it was before the one rounding."""

    currency: str
    amount: str
    exact_amount: str
    lines: list[PreviewLine]

    @classmethod
    def of(cls, priced: Priced, currency: str) -> "PreviewOut":
        return cls(
            currency=currency,
            amount=in_minor_units(priced.amount, currency),
            exact_amount=plain(priced.exact_amount),
            lines=[
                PreviewLine(
                    description=each.part.description,
                    quantity=None if each.part.quantity is None else plain(each.part.quantity),
                    unit_amount=None if each.part.unit_amount is None else plain(each.part.unit_amount),
                    amount=in_minor_units(each.amount, currency),
                    tier=each.part.tier,
                )
                for each in priced.parts
            ],
        )
