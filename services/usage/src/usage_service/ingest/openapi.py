"""POST /v1/events in the OpenAPI document, where a plain endpoint would be missing."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

_EVENT = {
    "type": "object",
    "required": ["specversion", "id", "source", "type", "subject"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 256},
        "source": {"type": "string", "minLength": 1, "maxLength": 512},
        "type": {"type": "string", "minLength": 1, "maxLength": 255},
        "subject": {"type": "string", "description": "The tenant: its id or its external id."},
        "time": {"type": "string", "format": "date-time", "description": "Receipt time where it is left out."},
        "data": {"type": "object"},
        "datacontenttype": {"type": "string", "description": "application/json, or a type that ends in +json."},
        "dataschema": {"type": "string"},
    },
    "additionalProperties": {
        "description": "CloudEvents extension attributes: 1 to 20 lower-case letters and digits.",
        "type": ["string", "boolean", "integer"],
    },
}
_PROBLEMS = {
    "400": "Nothing accepted; `errors` has the index and the reason of each bad event.",
    "403": "A subject that is not the credential's tenant, or a tenant that is suspended or pinned to another region.",
    "408": "The body did not come in time.",
    "413": "The body, an event or the number of events is too large; the body also when it is unpacked.",
    "415": "Not a content type of events, or an encoding that is not in `Accept-Encoding`.",
    "422": "A parameter that is unknown, given twice, or neither true nor false.",
    "429": "Beyond the tenant's rate, or too much of this caller on its way; repeat it after `Retry-After` seconds.",
    "4XX": "The request cannot be served as it is",
    "503": "Not acknowledged; may yet count; repeating is safe after `Retry-After` seconds.",
}
_OPERATION: dict[str, Any] = {
    "tags": ["usage"],
    "summary": "Send usage events",
    "description": (
        "One CloudEvent, an array, or NDJSON, as it is or packed (Content-Encoding gzip or zstd); or binary mode, with "
        "the event in ce- headers and its data as the body. 202 once Kafka has all of them on all in-sync replicas; "
        "repeating a request never counts an event twice."
    ),
    "parameters": [
        {
            "name": name,
            "in": "query",
            "schema": {"type": "boolean", "default": False},
            "description": text,
        }
        for name, text in (
            ("partial", "Accept the good events of a request that holds bad ones, and list the bad ones."),
            ("echo", "Answer with the id and the time used of each accepted event."),
            ("accept_late", "Accept events of any age. For operators, who bring in history."),
            ("billable", "With accept_late: also events from the tenant's bill_from on, which will be billed."),
            ("dry_run", "Say with 200 what would be accepted and refused, and send nothing."),
        )
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/cloudevents+json": {"schema": _EVENT},
            "application/cloudevents-batch+json": {"schema": {"type": "array", "items": _EVENT}},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    },
    "responses": {
        "200": {"description": "Of a dry run", "content": {"application/json": {"schema": {"type": "object"}}}},
        "202": {"description": "Accepted", "content": {"application/json": {"schema": {"type": "object"}}}},
        **{
            status: {
                "description": description,
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }
            for status, description in _PROBLEMS.items()
        },
    },
}


def document_ingest(app: FastAPI, path: str) -> None:
    """Adds the operation to the document that `app` generates."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["paths"].setdefault(path, {})["post"] = _OPERATION
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
