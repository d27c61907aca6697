"""What a query string says of a question: filters by operator, groups, and the way back to the events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import quote, urlencode
from uuid import UUID

from usage_service.domain.errors import InvalidWindow
from usage_service.domain.filters import OPERATORS, Predicate, predicate
from usage_service.domain.instants import rfc3339
from usage_service.queries.figures import Figure
from usage_service.queries.questions import is_path

Parameters = Sequence[tuple[str, str]]
"""A query string's names and values, in order; a name may come again."""

_BOOLEANS: Final = {"true": True, "false": False}
_MAX_FILTERS: Final = 100


def check_names(parameters: Parameters, *, once: Collection[str], many: Collection[str], places: Sequence[str]) -> None:
    """Raises InvalidWindow for a name that is no parameter: an answer without it would be one of another question.

    `once` may come once and `many` again and again; `places` come as `filter[place]`.
    """
    for name, times in Counter(name for name, _ in parameters).items():
        if name in many or (name.endswith("]") and name.partition("[")[0] in places):
            continue
        if name not in once:
            known = sorted([*once, *many, *(f"{place}[…]" for place in places)])
            raise InvalidWindow(name[:64], f"there is no such parameter; there are {', '.join(known)}")
        if times > 1:
            raise InvalidWindow(name, "is given more than once")


def filters(parameters: Parameters) -> list[tuple[str, Predicate]]:
    """The tests of `filter[place]=value` and `filter[place][operator]=value`, all of which must hold.

    A place is a dimension or a path into the data, `$.status`. Without an operator any of the values given for a place
    will do, as with `in`; the missing dimension is the empty text. Raises InvalidWindow and InvalidDefinition.
    """
    listed: dict[str, list[object]] = {}
    tests: list[tuple[str, Predicate]] = []
    wanted = [(name, value) for name, value in parameters if name.startswith("filter[") and name.endswith("]")]
    if len(wanted) > _MAX_FILTERS:
        raise InvalidWindow("filter", f"at most {_MAX_FILTERS} filters")
    for name, value in wanted:
        place, operator = _split(name[len("filter[") : -1])
        if operator == "in":
            listed.setdefault(place, []).append(value)
        elif operator == "exists":
            tests.append((place, _exists(place, value, loc=name)))
        else:
            tests.append((place, predicate(operator, value, loc=name)))
    return tests + [(place, predicate("in", values, loc=f"filter[{place}]")) for place, values in listed.items()]


def groups(parameters: Parameters) -> list[tuple[str, Predicate]]:
    """The tests of `group[dimension]=value`: the events of one group of an answer."""
    return [
        (name[len("group[") : -1], predicate("eq", value, loc=name))
        for name, value in parameters
        if name.startswith("group[") and name.endswith("]")
    ]


def events_links(
    path: str, tenant_id: UUID, slug: str, figures: Iterable[Figure], parameters: Parameters
) -> Iterator[str]:
    """Where the events behind each figure are: of its part of the range, its group, and the same filters."""
    tests = [(name, value) for name, value in parameters if name.startswith("filter[") or name == "received_before"]
    same = f"{path}?{_encoded([('tenant_id', str(tenant_id)), ('meter', slug), *tests])}"
    known: dict[tuple[tuple[str, str], ...], str] = {(): ""}
    for figure in figures:
        group = tuple(figure.group.items())
        if group not in known:
            known[group] = f"&{_encoded([(f'group[{name}]', value) for name, value in group])}"
        yield f"{same}&from={rfc3339(figure.first)}&to={rfc3339(figure.last)}{known[group]}"


def _encoded(named: Sequence[tuple[str, str]]) -> str:
    return urlencode(named, quote_via=quote, safe="$:/[]")


def _split(inside: str) -> tuple[str, str]:
    """`place][operator` as it stands between the outer brackets; a path may have brackets of its own."""
    place, separator, operator = inside.rpartition("][")
    return (place, operator) if separator and operator in OPERATORS else (inside, "in")


def _exists(place: str, value: str, *, loc: str) -> Predicate:
    if value not in _BOOLEANS:
        raise InvalidWindow(loc, "exists takes true or false")
    if is_path(place):
        return predicate("exists", _BOOLEANS[value], loc=loc)
    return predicate("ne" if _BOOLEANS[value] else "eq", "", loc=loc)
