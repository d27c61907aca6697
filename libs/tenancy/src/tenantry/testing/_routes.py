"""Requests generated from an OpenAPI document, so that a sweep covers a route from the day it is written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

_METHODS = ("get", "put", "post", "patch", "delete", "head", "options", "trace")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_BINARY = b"\x00\x01 made up by the route sweep"


@dataclass(frozen=True, slots=True)
class RouteOperation:
    """One method of one path, with what a valid request for it needs."""

    method: str
    path: str
    path_parameters: tuple[str, ...]
    query: tuple[Mapping[str, Any], ...]
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
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        base_url: str = "http://test",
    ) -> httpx.Request:
        """A request that the service would accept, were the ids in it those of the caller.

        `values` gives the value of every path parameter, of required query parameters, and of body fields by name.
        Raises LookupError for a path parameter that it lacks: the sweep must be told what a new parameter names.
        """
        missing = [name for name in self.path_parameters if name not in values]
        if missing:
            raise LookupError(f"{self}: the sweep has no value for path parameter {', '.join(missing)}")
        path = self.path
        for name in self.path_parameters:
            path = path.replace("{" + name + "}", quote(values[name], safe=""))
        parameters = {
            parameter["name"]: values.get(parameter["name"]) or str(self._example(parameter["schema"], values))
            for parameter in self.query
            if parameter.get("required")
        }
        content, content_headers = self._content(values)
        return httpx.Request(
            self.method,
            base_url + path,
            params={**parameters, **(query or {})},
            headers={**content_headers, **(headers or {})},
            content=content,
        )

    def _content(self, values: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
        if self.body_schema is None or self.content_type is None:
            return b"", {}
        example = self._example(self.body_schema, values)
        content = example if isinstance(example, bytes) else msgspec.json.encode(example)
        return content, {"Content-Type": self.content_type}

    def _example(self, schema: Mapping[str, Any], values: Mapping[str, str], name: str = "") -> Any:
        schema = self._resolved(schema)
        example: Any
        if name in values:
            example = values[name]
        elif "enum" in schema:
            example = schema["enum"][0]
        else:
            match schema.get("type"):
                case "object":
                    properties: Mapping[str, Any] = schema.get("properties", {})
                    example = {key: self._example(each, values, key) for key, each in properties.items()}
                case "array":
                    example = [self._example(schema["items"], values)]
                case "boolean":
                    example = True
                case "integer" | "number":
                    example = max(1, schema.get("minimum", 1))
                case "null":
                    example = None
                case _:
                    example = self._text(schema)
        return example

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

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema or "anyOf" in schema:
            if "$ref" in schema:
                schema = self.components[schema["$ref"].rpartition("/")[2]]
            else:
                schema = next(each for each in schema["anyOf"] if each.get("type") != "null")
        return schema


def route_operations(openapi: Mapping[str, Any]) -> Iterator[RouteOperation]:
    """Every operation of an OpenAPI 3 document, in its order."""
    components = openapi.get("components", {}).get("schemas", {})
    for path, item in openapi["paths"].items():
        for method in _METHODS:
            if (operation := item.get(method)) is None:
                continue
            parameters = [*item.get("parameters", ()), *operation.get("parameters", ())]
            contents = operation.get("requestBody", {}).get("content", {})
            content_type = next(iter(contents), None)
            yield RouteOperation(
                method=method.upper(),
                path=path,
                path_parameters=tuple(each["name"] for each in parameters if each["in"] == "path"),
                query=tuple(each for each in parameters if each["in"] == "query"),
                content_type=content_type,
                body_schema=contents[content_type].get("schema") if content_type else None,
                components=components,
            )
