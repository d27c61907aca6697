"""Routes by name: the one that was matched, and values for some of them, found before any is."""

import re
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

from starlette.types import Scope

Value = TypeVar("Value")

_NO_ROUTE: Final = "none"
_PARAMETER = re.compile(r"\\\{[A-Za-z_]\w*\\\}")


class RouteRules(Generic[Value]):
    """Looks up a value by `"METHOD /path"` or `"/path"` (any method).

    `{name}` stands for one segment and a final `/*` for anything below. Exact paths win over patterns, patterns are
    tried in the order in which they were given, a rule with a method is tried before one without.
    """

    def __init__(self, rules: Mapping[str, Value]) -> None:
        self._exact: dict[tuple[str, str], Value] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Value]] = []
        for rule, value in sorted(rules.items(), key=lambda item: item[0].startswith("/")):
            method, _, path = rule.rpartition(" ")
            if not path.startswith("/"):
                raise ValueError(f"{rule!r} is not 'METHOD /path' or '/path'")
            if "{" in path or path.endswith("/*"):
                self._patterns.append((method, _compile(path), value))
            else:
                self._exact[method, path] = value

    def find(self, method: str, path: str, default: Value) -> Value:
        """The value for this request, else `default`."""
        exact = self._exact
        if exact:
            if (method, path) in exact:
                return exact[method, path]
            if ("", path) in exact:
                return exact["", path]
        for wanted, pattern, value in self._patterns:
            if (not wanted or wanted == method) and pattern.fullmatch(path):
                return value
        return default


def _compile(path: str) -> re.Pattern[str]:
    below = path.endswith("/*")
    text = _PARAMETER.sub("[^/]+", re.escape(path[:-2] if below else path))
    return re.compile(text + "(?:/.*)?" if below else text)


def route_template(scope: Scope) -> str:
    """The path of the matched route with its parameters' names, such as `/v1/documents/{id}`; `none` without one."""
    route = scope.get("route")
    if route is None:
        return _NO_ROUTE
    # A route of an included router knows its path without the prefix; what was matched is kept beside it.
    matched = scope.get("fastapi", {}).get("effective_route_context") or route
    path = getattr(matched, "path_format", None) or getattr(route, "path", _NO_ROUTE)
    return f"{scope.get('root_path', '')}{path}"
