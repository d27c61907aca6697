"""Requests generated from an OpenAPI document, so that a sweep covers a route from the day it is written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

import httpx
import msgspec

_METHODS: Final = ("get", "put", "post", "patch", "delete", "head", "options", "trace")
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_BINARY: Final = b"\x00\x01 made up by the route sweep"
_FORM: Final = "application/x-www-form-urlencoded"

Place = Literal["path", "query", "header", "body"]


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a request where a value may stand; in a body, ``[]`` is each element of an array."""

    place: Place
    path: tuple[str, ...]
    schema: Mapping[str, Any] = field(compare=False)

    def __str__(self) -> str:
        return f"{self.place} {'.'.join(self.path).replace('.[]', '[]')}"

    @property
    def name(self) -> str:
        """The innermost name, which is that of the array for its elements."""
        return next((part for part in reversed(self.path) if part != "[]"), "")

    @property
    def in_array(self) -> bool:
        return "[]" in self.path


@dataclass(frozen=True, slots=True)
class RouteOperation:
    """One method of one path, with what a valid request for it needs."""

    method: str
    path: str
    path_parameters: tuple[str, ...]
    query: tuple[Mapping[str, Any], ...]
    headers: tuple[Mapping[str, Any], ...]
    content_type: str | None
    body_schema: Mapping[str, Any] | None
    components: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def safe(self) -> bool:
        """Whether the method promises to change nothing."""
        return self.method in _SAFE

    def request(
        self,
        values: Mapping[str, str],
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        base_url: str = "http://test",
    ) -> httpx.Request:
        """A request that the service would accept, were the ids in it those of the caller.

        `values` gives the value of every path parameter, of required query parameters, and of body fields by name.
        Raises LookupError for a path parameter that it lacks: the sweep must be told what a new parameter names.
        """
        return self.assembled(
            values, query={**self.query_example(values), **(query or {})}, headers=headers or {},
            body=self.body_example(values), base_url=base_url,
        )  # fmt: skip

    def assembled(
        self,
        path_values: Mapping[str, str],
        *,
        query: Mapping[str, Any],
        headers: Mapping[str, str],
        body: Any,
        base_url: str = "http://test",
    ) -> httpx.Request:
        """The request of exactly these parts. Raises LookupError for a path parameter without a value."""
        missing = [name for name in self.path_parameters if name not in path_values]
        if missing:
            raise LookupError(f"{self}: the sweep has no value for path parameter {', '.join(missing)}")
        path = self.path
        for name in self.path_parameters:
            path = path.replace("{" + name + "}", quote(str(path_values[name]), safe=""))
        content, content_headers = self._content(body)
        return httpx.Request(
            self.method, base_url + path, params=dict(query), headers={**content_headers, **headers}, content=content
        )

    def query_example(self, values: Mapping[str, str]) -> dict[str, Any]:
        """Values of the required query parameters."""
        return {
            each["name"]: values.get(each["name"]) or str(self.example(each["schema"], values))
            for each in self.query
            if each.get("required")
        }

    def header_example(self, values: Mapping[str, str]) -> dict[str, str]:
        """Values of the required headers."""
        return {
            each["name"]: values.get(each["name"]) or str(self.example(each["schema"], values))
            for each in self.headers
            if each.get("required")
        }

    def body_example(self, values: Mapping[str, str]) -> Any:
        """A body after its schema: a JSON value, bytes, or None for an operation without one."""
        if self.body_schema is None or self.content_type is None:
            return None
        return self.example(self.body_schema, values)

    def positions(self) -> Iterator[Position]:
        """Every place in a request where the document says that a value may stand."""
        for name in self.path_parameters:
            yield Position("path", (name,), {})
        for place, parameters in (("query", self.query), ("header", self.headers)):
            for each in parameters:
                schema = self.resolved(each.get("schema", {}))
                path = (each["name"], "[]") if schema.get("type") == "array" else (each["name"],)
                yield Position(place, path, schema.get("items", schema))  # type: ignore[arg-type]  # one of the two
        if self.body_schema is not None:
            yield from self._body_positions(self.body_schema, (), ())

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema that a reference or a choice stands for; of a choice the first that is not null."""
        while "$ref" in schema or "anyOf" in schema or "oneOf" in schema:
            schema = self._chosen(schema)
        return schema

    def example(
        self, schema: Mapping[str, Any], values: Mapping[str, str], name: str = "", above: tuple[str, ...] = ()
    ) -> Any:
        """A value after the schema, or that of ``values`` by this name; ``above`` are the references that led here."""
        if schema.get("$ref") in above:
            return None  # it holds itself, and must be optional
        if "$ref" in schema or "anyOf" in schema or "oneOf" in schema:
            return self.example(self._chosen(schema), values, name, (*above, schema.get("$ref", "")))
        example: Any
        if name in values:
            example = values[name]
        elif "enum" in schema or "const" in schema:
            example = schema.get("const", next(iter(schema.get("enum", ())), None))
        elif "allOf" in schema:
            example = self._merged([self.example(each, values, name, above) for each in schema["allOf"]])
        else:
            match schema.get("type"):
                case "object":
                    properties: Mapping[str, Any] = schema.get("properties", {})
                    example = {key: self.example(each, values, key, above) for key, each in properties.items()}
                case "array":
                    example = self._array(schema.get("items", {}), values, name.removesuffix("s"), above)
                case _:
                    example = self._scalar(schema)
        return example

    def _array(
        self, items: Mapping[str, Any], values: Mapping[str, str], name: str, above: tuple[str, ...]
    ) -> list[Any]:
        return [] if items.get("$ref") in above else [self.example(items, values, name, above)]

    def _merged(self, parts: list[Any]) -> Any:
        """One value after all of these; only objects can be put together."""
        return {key: each for part in parts for key, each in part.items()} if len(parts) > 1 else parts[0]

    def _body_positions(
        self, schema: Mapping[str, Any], path: tuple[str, ...], above: tuple[str, ...]
    ) -> Iterator[Position]:
        if (reference := schema.get("$ref")) is not None:
            if reference not in above:  # a schema that holds itself has the same positions again, deeper
                yield from self._body_positions(self._component(reference), path, (*above, reference))
            return
        parts = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
        for part in parts:
            yield from self._body_positions(part, path, above)
        for name, each in schema.get("properties", {}).items():
            yield from self._body_positions(each, (*path, name), above)
        if "items" in schema:
            yield from self._body_positions(schema["items"], (*path, "[]"), above)
        if path and not parts and schema.get("type") not in {"object", "array", "null"}:
            yield Position("body", path, schema)

    def _content(self, body: Any) -> tuple[bytes, dict[str, str]]:
        if body is None or self.content_type is None:
            return b"", {}
        if isinstance(body, bytes):
            content = body
        elif self.content_type == _FORM:
            content = urlencode(body, doseq=True).encode()
        else:
            content = msgspec.json.encode(body)
        return content, {"Content-Type": self.content_type}

    def _scalar(self, schema: Mapping[str, Any]) -> Any:
        match schema.get("type"):
            case "boolean":
                return True
            case "integer" | "number":
                return max(1, schema.get("minimum", 1))
            case "null":
                return None
            case _:
                return self._text(schema)

    def _text(self, schema: Mapping[str, Any]) -> str | bytes:
        match schema.get("format"):
            case "binary":
                return _BINARY
            case "uuid":
                return "0190c0de-0000-7000-8000-00000000feed"
            case "date-time":
                return "2026-01-01T00:00:00Z"
            case _:
                return "sweep".ljust(schema.get("minLength", 1), "x")[: schema.get("maxLength", 100)]

    def _chosen(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" in schema:
            return self._component(schema["$ref"])
        choices: list[Mapping[str, Any]] = schema.get("anyOf") or schema["oneOf"]
        return next(each for each in choices if each.get("type") != "null")

    def _component(self, reference: str) -> Mapping[str, Any]:
        component: Mapping[str, Any] = self.components[reference.rpartition("/")[2]]
        return component


def route_operations(openapi: Mapping[str, Any]) -> Iterator[RouteOperation]:
    """Every operation of an OpenAPI 3 document, in its order."""
    components = openapi.get("components", {}).get("schemas", {})
    for path, item in openapi["paths"].items():
        for method in _METHODS:
            if (operation := item.get(method)) is None:
                continue
            parameters = [
                _parameter(openapi, each) for each in (*item.get("parameters", ()), *operation.get("parameters", ()))
            ]
            contents = operation.get("requestBody", {}).get("content", {})
            content_type = next(iter(contents), None)
            yield RouteOperation(
                method=method.upper(),
                path=path,
                path_parameters=tuple(each["name"] for each in parameters if each["in"] == "path"),
                query=tuple(each for each in parameters if each["in"] == "query"),
                headers=tuple(each for each in parameters if each["in"] == "header"),
                content_type=content_type,
                body_schema=contents[content_type].get("schema") if content_type else None,
                components=components,
            )


def _parameter(openapi: Mapping[str, Any], parameter: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in parameter:
        return parameter
    found: Mapping[str, Any] = openapi["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
    return found
