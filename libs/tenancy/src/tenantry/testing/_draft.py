"""A request that is put together, with other ids in some of its places."""

import copy
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import httpx

from tenantry.testing._routes import Position, RouteOperation
from tenantry.testing._side import Example

Variant = Literal["alone", "after one's own", "before one's own"]

_ID_NAME: Final = re.compile(r"(?:^|[_-])(?:id|uuid|guid)s?$|[a-z]Ids?$")


@dataclass(slots=True)
class Draft:
    """The parts of a request for ``operation``, with the caller's own ids in every place that ``example`` has."""

    operation: RouteOperation
    path: dict[str, str]
    query: dict[str, Any]
    headers: dict[str, str]
    body: Any

    @classmethod
    def of(cls, operation: RouteOperation, example: Example, ids: Mapping[str, str]) -> "Draft":
        body = example.body_for(ids)
        if body is None:
            body = operation.body_example(ids)
        return cls(
            operation,
            {**ids, **example.path},
            {**operation.query_example(ids), **example.query},
            {**operation.header_example(ids), **example.headers},
            copy.deepcopy(body),
        )

    def has(self, position: Position) -> bool:
        """Whether the request has such a place: in a body it is only there if the example has it."""
        return position.place != "body" or _reaches(self.body, position.path)

    def put(self, position: Position, value: str, variant: Variant = "alone") -> None:
        """Has ``value`` stand at ``position``; in an array, as ``variant`` says, beside the others."""
        typed = int(value) if position.schema.get("type") == "integer" and value.isdecimal() else value
        match position.place:
            case "path":
                self.path[position.name] = value
            case "header":
                self.headers[position.name] = value
            case "query":
                own = self.query.get(position.name, [])
                self.query[position.name] = _beside(own, value, variant) if position.in_array else value
            case "body":
                self.body = _replaced(self.body, position.path, typed, variant)

    def request(self, headers: Mapping[str, str], base_url: str) -> httpx.Request:
        """Raises LookupError for a path parameter that neither the ids nor the example have a value for."""
        return self.operation.assembled(
            self.path, query=self.query, headers={**self.headers, **headers}, body=self.body, base_url=base_url
        )


def known_id(operation: RouteOperation, position: Position, ids: Mapping[str, str]) -> str | None:
    """The id for ``position``, under the position itself, its name, its singular, or its parent's name and its own."""
    parents = [part for part in position.path[:-1] if part != "[]"]
    candidates = [f"{operation} {position}", position.name, position.name.removesuffix("s")]
    if parents:
        candidates.append(f"{parents[-1].removesuffix('s')}_{position.name}")
    return next((ids[name] for name in candidates if name in ids), None)


def looks_like_an_id(position: Position, not_ids: Collection[str]) -> bool:
    """Whether ``position`` has to be known to the sweep."""
    if position.place == "path":
        return True
    if position.name in not_ids:
        return False
    named = position.place != "header" and _ID_NAME.search(position.name) is not None
    return named or position.schema.get("format") == "uuid"


def _reaches(body: Any, path: tuple[str, ...]) -> bool:
    if not path:
        return True
    if path[0] == "[]":
        return isinstance(body, list) and bool(body) and _reaches(body[0], path[1:])
    return isinstance(body, dict) and path[0] in body and _reaches(body[path[0]], path[1:])


def _replaced(body: Any, path: tuple[str, ...], value: Any, variant: Variant) -> Any:
    if not path:
        return value
    if path[0] != "[]":
        return {**body, path[0]: _replaced(body[path[0]], path[1:], value, variant)}
    if "[]" in path[1:]:  # an array in an array: the inner one is varied
        return [_replaced(body[0], path[1:], value, variant), *body[1:]]
    return _beside(body, _replaced(body[0], path[1:], value, variant), variant)


def _beside(own: list[Any], foreign: Any, variant: Variant) -> list[Any]:
    match variant:
        case "alone":
            return [foreign]
        case "after one's own":
            return [*own, foreign]
        case "before one's own":
            return [foreign, *own]
