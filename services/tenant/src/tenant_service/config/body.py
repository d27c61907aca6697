"""Documents in request bodies. They are read here and not by FastAPI, which takes NaN, and the last of equal keys."""

from typing import Annotated, Any

from fastapi import Depends, Request

from tenant_service.config.offenders import InvalidConfig
from tenant_service.domain.documents import MAX_BYTES, BadDocument, NotJson, parse_document
from tenantry import PayloadTooLarge, UnsupportedMedia
from tenantry.config import split
from tenantry.http import MalformedJson

SCHEMA_MAX_DEPTH = 40

DOCUMENT_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}


async def read_document(request: Request, **limits: int) -> dict[str, Any]:
    """The body as a document. Raises `UnsupportedMedia`, `PayloadTooLarge`, `MalformedJson`, `InvalidConfig`."""
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMedia("The body is application/json")
    raw = await request.body()
    if len(raw) > MAX_BYTES:
        raise PayloadTooLarge(f"A document has at most {MAX_BYTES} bytes")
    try:
        return parse_document(raw, **limits)
    except NotJson as error:
        raise MalformedJson(str(error)) from None
    except BadDocument as error:
        raise InvalidConfig(str(error), errors=[{"loc": ["body", *split(error.pointer)], "msg": str(error)}]) from None


async def _document(request: Request) -> dict[str, Any]:
    return await read_document(request)


async def _schema_document(request: Request) -> dict[str, Any]:
    return await read_document(request, max_depth=SCHEMA_MAX_DEPTH)


Document = Annotated[dict[str, Any], Depends(_document)]
"""The body, a configuration document."""

SchemaDocument = Annotated[dict[str, Any], Depends(_schema_document)]
"""The body, which holds a JSON Schema."""
