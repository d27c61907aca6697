"""What every operation may answer beside its own responses, said once for all of them in the OpenAPI document."""

from typing import Any, Final

from fastapi import FastAPI

_METHODS: Final = frozenset({"get", "put", "post", "patch", "delete", "head", "options", "trace"})
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Problem",
    "description": "Problem details of RFC 9457. `type` names the kind and stays as it is; the other words may change.",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "msg"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                },
            },
        },
    },
}
_CONTENT: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_RESPONSES: Final = {
    "4XX": {"description": "The request cannot be served as it is", "content": _CONTENT},
    "503": {"description": "What is needed for it is away; try again", "content": _CONTENT},
}
# FastAPI's own shape of a validation error, which is never sent.
_UNUSED: Final = ("HTTPValidationError", "ValidationError")


def document_problems(app: FastAPI) -> None:
    """Adds the problems to every operation of the application's document; what an operation says itself stays."""
    generate = app.openapi

    def documented() -> dict[str, Any]:
        return app.openapi_schema or _with_problems(generate())

    app.openapi = documented  # type: ignore[method-assign]  # FastAPI's documented way


def _with_problems(document: dict[str, Any]) -> dict[str, Any]:
    for item in document["paths"].values():
        for method in _METHODS & item.keys():
            responses: dict[str, Any] = item[method]["responses"]
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]
            for status, response in _RESPONSES.items():
                responses.setdefault(status, response)
    schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _UNUSED:
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    return document
