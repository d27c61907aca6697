"""Numbers in events: exact, bounded, never a float.

A number is written in JSON's number grammar, has at most 38 significant digits and a decimal exponent from -18 to 20.
Sums of such numbers need at most 38 + 20 + 18 digits and some for the count of terms, so 120 digits of context are
exact for more terms than a database can hold; the context traps what would round.
"""

from __future__ import annotations

import re
from decimal import Clamped, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow

from usage_service.domain.errors import InvalidQuantity
from usage_service.domain.identity import canonical_json

Quantity = int | Decimal

EXACT = Context(prec=120, traps=[Inexact, InvalidOperation, Overflow, DivisionByZero, Clamped])
MAX_DIGITS = 38
MIN_EXPONENT, MAX_EXPONENT = -18, 20

_EXPECTED = "value must be a finite number or a numeric string"
_BIGGEST_INTEGER = 10**MAX_DIGITS
RATIO_DIGITS = 18  # digits after the point of a quotient that does not end
SMALL = 10**18
"""Integers below need no check of their digits."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LONGEST = 200  # characters of a numeric string; more cannot be within the bounds unless it is padding


def decimal_of(text: str) -> Decimal:
    """The decimal that a JSON number says, within the bounds. Raises InvalidQuantity."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise InvalidQuantity("a number outside of what can be stored") from None
    _, digits, exponent = number.as_tuple()
    if len(digits) > MAX_DIGITS:
        raise InvalidQuantity(f"a number of more than {MAX_DIGITS} digits")
    if not isinstance(exponent, int) or not MIN_EXPONENT <= exponent <= MAX_EXPONENT:
        raise InvalidQuantity(f"a number with an exponent outside of {MIN_EXPONENT} to {MAX_EXPONENT}")
    return number


def check_integer(number: int) -> int:
    """The same integer if it has at most 38 digits. Raises InvalidQuantity."""
    if not -_BIGGEST_INTEGER < number < _BIGGEST_INTEGER:
        raise InvalidQuantity(f"a number of more than {MAX_DIGITS} digits")
    return number


def check_numbers(value: object) -> None:
    """Walks a decoded document; floats have been checked by the decoder's hook, so integers are left."""
    if isinstance(value, int):
        check_integer(value)
    elif isinstance(value, dict):
        for member in value.values():
            check_numbers(member)
    elif isinstance(value, list):
        for member in value:
            check_numbers(member)


def quantity_of(value: object) -> int | Decimal:
    """What a meter counts for this value of an event: a number, or a string in the grammar of JSON numbers.

    Raises InvalidQuantity with the reason for anything else: null, booleans, "NaN", " 1", "0x10", lists, objects.
    """
    if type(value) is int:
        return check_integer(value)
    if isinstance(value, Decimal):
        return value
    if isinstance(value, str):
        if len(value) > _LONGEST or not _NUMBER.fullmatch(value):
            raise InvalidQuantity(f"{_EXPECTED}, not the text {value[:40]!r}")
        return decimal_of(value)
    if value is None:
        raise InvalidQuantity("the value is missing or null")
    raise InvalidQuantity(f"{_EXPECTED}, not {_JSON_NAMES.get(type(value), 'this')}")


_JSON_NAMES: dict[type, str] = {bool: "a boolean", list: "an array", dict: "an object"}


def canonical_number(text: str) -> int | Decimal:
    """One spelling for equal numbers (1.0, 1e0 and 1 are the same content): integers as int, others normalised.

    An int has at most 38 digits, whoever made it: what an exponent makes longer stays a decimal. Raises InvalidQuantity
    outside of the bounds.
    """
    number = decimal_of(text)
    if number.adjusted() < MAX_DIGITS and number == number.to_integral_value():
        return int(number)
    return EXACT.normalize(number)


def add(left: Quantity, right: Quantity) -> Quantity:
    """Exact whatever the context of the thread is."""
    if type(left) is int and type(right) is int:
        return left + right
    return EXACT.add(Decimal(left), Decimal(right))


def multiply(quantity: Quantity, factor: int) -> Quantity:
    """Exact whatever the context of the thread is."""
    return quantity * factor if type(quantity) is int else EXACT.multiply(Decimal(quantity), Decimal(factor))


def value_text(value: object) -> str:
    """One text for a value of an event wherever values are compared as texts: a text as it is, all else as JSON."""
    return value if isinstance(value, str) else canonical_json(value)


def ratio_text(number: int | Decimal, divisor: int) -> str:
    """A quotient as the string of an answer, rounded half away from zero after 18 digits where it does not end."""
    numerator, denominator = Decimal(number).as_integer_ratio()
    scaled, rest = divmod(abs(numerator) * 10**RATIO_DIGITS, denominator * divisor)
    if 2 * rest >= denominator * divisor:
        scaled += 1
    return number_text(EXACT.scaleb(Decimal(scaled if numerator >= 0 else -scaled), -RATIO_DIGITS))


def number_text(number: int | Decimal) -> str:
    """A quantity as the string of an answer: plain digits, no exponent, no trailing zeros of a fraction."""
    text = format(Decimal(number), "f")  # an int would be made a float
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text
