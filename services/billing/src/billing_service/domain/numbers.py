"""Decimals as they come in and go out: strings in JSON, never floats."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from billing_service.domain.money import plain

_NUMBER = re.compile(r"-?\d{1,38}(\.\d{1,18})?\Z", re.ASCII)
MAX_DIGITS = 38


def parse_number(value: Any) -> Decimal:
    """A decimal from a string such as "12.50" (or an int, or a Decimal); raises ValueError for anything else.

    At most 38 digits, 18 of them after the point, no exponent. Floats are refused: they have lost the number
    before it arrives.
    """
    if isinstance(value, Decimal):
        value = format(value, "f")
    elif isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError('must be a decimal in a string such as "12.50"')  # noqa: TRY004 - pydantic reports ValueError
    if _NUMBER.match(value) is None or sum(map(str.isdigit, value)) > MAX_DIGITS:
        raise ValueError("must be a plain decimal of at most 38 digits, 18 of them after the point")
    return Decimal(value)


DecimalText = Annotated[
    Decimal,
    BeforeValidator(parse_number),
    PlainSerializer(plain, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?\d{1,38}(\.\d{1,18})?$", "examples": ["12.50"]}),
]
Amount = Annotated[DecimalText, Field(ge=0)]
"""A price or a quantity that cannot be negative."""
