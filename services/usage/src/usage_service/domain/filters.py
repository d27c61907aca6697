"""Filters over an event's data or a rollup's group: `{place: {operator: operand}}`, all of which must hold.

Numbers compare as numbers wherever both sides are numeric, else texts compare as texts. One value, one interpretation:
rollups and raw events are both filtered here, so they cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal

from usage_service.domain.errors import InvalidDefinition, InvalidQuantity
from usage_service.domain.quantities import quantity_of

Predicate = Callable[[object], bool]
FRACTION_DIGITS = 15  # decimal digits that every IEEE double keeps
LONGEST_PATTERN = 512
OPERATORS = ("eq", "ne", "in", "exists", "gt", "gte", "lt", "lte", "like")


def predicate(operator: str, operand: object, *, loc: str) -> Predicate:
    """The test that one operator makes of a value. Raises InvalidDefinition for what it cannot use."""
    operand = _exact(operand, loc)
    if operator == "exists":
        if not isinstance(operand, bool):
            raise InvalidDefinition(loc, "exists takes true or false")
        return lambda value: (value is not None) is operand
    if operator == "in":
        if not isinstance(operand, list):
            raise InvalidDefinition(loc, "in takes a list")
        return lambda value: any(_equal(value, member) for member in operand)
    if operator == "eq":
        return lambda value: _equal(value, operand)
    if operator == "ne":
        return lambda value: not _equal(value, operand)
    if operator == "like":
        if not isinstance(operand, str):
            raise InvalidDefinition(loc, "like takes a text with % and _")
        return _like(operand, loc)
    if operator in {"gt", "gte", "lt", "lte"}:
        return _ordering(operator, operand, loc)
    raise InvalidDefinition(loc, f"the operators are {', '.join(OPERATORS)}")


def canonical_filter(conditions: Mapping[str, object], dimensions: Mapping[str, str]) -> dict[str, object]:
    """A filter in the one form in which it is kept: `{path: {operator: operand}}`.

    A place may be the name of a dimension, which stands for its path, and a condition may be written as
    `{"op": operator, "value": operand}`. Raises InvalidDefinition where one operator is given twice for a place.
    """
    found: dict[str, object] = {}
    for place, written in conditions.items():
        condition = written
        if isinstance(written, dict) and written.keys() == {"op", "value"}:
            condition = {str(written["op"]): written["value"]}
        path = dimensions.get(place, place)
        known = found.setdefault(path, condition)
        if known is condition:
            continue
        if not isinstance(known, dict) or not isinstance(condition, dict) or known.keys() & condition.keys():
            raise InvalidDefinition("filter", f"there are two filters of {path!r}")
        found[path] = {**known, **condition}
    return found


def predicates(conditions: Mapping[str, object], *, loc: str) -> list[tuple[str, Predicate]]:
    """The tests of a whole filter, by place. Raises InvalidDefinition."""
    found: list[tuple[str, Predicate]] = []
    for place, condition in conditions.items():
        if not isinstance(condition, dict) or not condition:
            raise InvalidDefinition(loc, f"the filter of {place!r} is an object {{operator: operand}}")
        found += [(place, predicate(operator, operand, loc=loc)) for operator, operand in condition.items()]
    return found


def _exact(operand: object, loc: str) -> object:
    """An operand as JSON's reader gave it, without floats and without texts that cannot be stored.

    A fraction of up to 15 digits goes through a binary float and back unchanged; a longer one is refused, because it
    has changed already.
    """
    if isinstance(operand, float):
        number = Decimal(repr(operand))
        if not number.is_finite() or len(number.normalize().as_tuple().digits) > FRACTION_DIGITS:
            raise InvalidDefinition(
                loc, f"a number with a fraction has at most {FRACTION_DIGITS} digits; write a longer one as a text"
            )
        return number
    if isinstance(operand, str):
        if "\0" in operand or (not operand.isascii() and any("\ud800" <= char <= "\udfff" for char in operand)):
            raise InvalidDefinition(loc, "a text contains NUL or a lone surrogate, which cannot be stored")
        return operand
    if isinstance(operand, list):
        return [_exact(member, loc) for member in operand]
    if isinstance(operand, dict):
        return {_exact(name, loc): _exact(member, loc) for name, member in operand.items()}
    return operand


def _number(value: object) -> int | Decimal | None:
    try:
        return quantity_of(value)
    except InvalidQuantity:
        return None


def _equal(value: object, operand: object) -> bool:
    if isinstance(value, str) and isinstance(operand, str):
        return value == operand
    if isinstance(value, bool) or isinstance(operand, bool):
        return value is operand
    left, right = _number(value), _number(operand)
    return value == operand if left is None or right is None else left == right


def _like(operand: str, loc: str) -> Predicate:
    """`%` is any text and `_` any character, as in SQL.

    Each part between two `%` is matched where it stands first, for good: a part that comes earlier leaves more for
    those after it. So a text is walked through once for each character of the pattern at most.
    """
    if len(operand) > LONGEST_PATTERN:
        raise InvalidDefinition(loc, f"like takes at most {LONGEST_PATTERN} characters")
    first, *parts = ["".join("." if char == "_" else re.escape(char) for char in part) for part in operand.split("%")]
    inner = "".join(f"(?>.*?{part})" for part in parts[:-1] if part)
    last = f".*{parts[-1]}" if parts else ""
    pattern = re.compile(first + inner + last, re.DOTALL)
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _ordering(operator: str, operand: object, loc: str) -> Predicate:
    bound = _number(operand)
    if bound is None:
        raise InvalidDefinition(loc, f"{operator} takes a number")

    def test(value: object) -> bool:
        number = _number(value)
        if number is None:
            return False
        if operator == "gt":
            return number > bound
        if operator == "gte":
            return number >= bound
        return number < bound if operator == "lt" else number <= bound

    return test
