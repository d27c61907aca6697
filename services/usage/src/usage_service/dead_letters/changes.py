"""What the request of a replay says that the event should have said."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from tenantry import InvalidRequest
from tenantry.http import MalformedJson
from usage_service.dead_letters.invalid_values import NO_CHANGE, Change
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import decode_document

# The body is read by hand: a framework would make floats of its numbers.
CHANGE_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "value": {
                            "oneOf": [{"type": "string"}, {"type": "number"}],
                            "description": "The value at the meter's path; the rest of the data stays.",
                        },
                        "data": {"type": "object", "description": "The whole data, instead of `value`."},
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}


def read_change(body: bytes) -> Change:
    """Of an empty body, that nothing changes. Raises MalformedJson and InvalidRequest."""
    if not body.strip():
        return NO_CHANGE
    try:
        document = decode_document(body)
    except InvalidEvent as error:
        raise MalformedJson(error.reason) from None
    if not isinstance(document, dict) or document.keys() - {"value", "data"}:
        raise _invalid((), "is an object with `value` or `data`")
    data, value = document.get("data"), document.get("value")
    if data is not None and value is not None:
        raise _invalid(("value",), "is part of `data` where that is given")
    if not isinstance(data, dict | None):
        raise _invalid(("data",), "is an object")
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal | None):
        raise _invalid(("value",), "is a number, or a text that is one")
    return NO_CHANGE if data is None and value is None else Change(data, value)


def _invalid(place: tuple[str, ...], reason: str) -> InvalidRequest:
    return InvalidRequest(reason, errors=[{"loc": ["body", *place], "msg": reason}])
