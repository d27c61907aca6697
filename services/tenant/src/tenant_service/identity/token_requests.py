"""Reading a request for a token: a form (RFC 6749) or JSON, the secret in the body or in HTTP Basic."""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import unquote_plus

import msgspec
from fastapi import Request
from pydantic import Field, TypeAdapter, ValidationError
from starlette.datastructures import FormData

from tenant_service.identity.schemas import ApiKeyExchange, ClientCredentials, TokenExchange
from tenantry import FieldError, InvalidRequest, MalformedRequest, UnsupportedMedia

Grant = ClientCredentials | ApiKeyExchange | TokenExchange

_GRANT: TypeAdapter[Grant] = TypeAdapter(Annotated[Grant, Field(discriminator="grant_type")])


class UnsupportedGrant(MalformedRequest):
    """RFC 6749, 5.2."""

    type = "unsupported-grant-type"
    title = "The grant type is not supported"


async def read_grant(request: Request) -> Grant:
    """What the request asks for. Raises `MalformedRequest`, `UnsupportedGrant`, `InvalidRequest`, `UnsupportedMedia`.

    No value that was sent stands in an error: it may be a secret.
    """
    fields = await _body(request)
    fields |= _basic(request, fields)
    try:
        return _GRANT.validate_python(fields)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        if any(fault["type"] == "union_tag_invalid" for fault in faults):
            raise UnsupportedGrant(
                "Use client_credentials, urn:tenantry:api-key or urn:ietf:params:oauth:grant-type:token-exchange"
            ) from None
        # The first place is the name of the branch, which nobody has sent.
        errors = [FieldError(loc=["body", *fault["loc"][1:]], msg=fault["msg"]) for fault in faults]
        raise InvalidRequest("The request for a token is not valid", errors=errors) from None


async def _body(request: Request) -> dict[str, Any]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        try:
            body = msgspec.json.decode(await request.body())
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise MalformedRequest("The body is not JSON") from None
        if not isinstance(body, dict):
            raise MalformedRequest("The body is not a JSON object")
        return body
    if media_type == "application/x-www-form-urlencoded":
        return _once(await request.form(max_files=0, max_fields=20))
    raise UnsupportedMedia("Send application/x-www-form-urlencoded or application/json")


def _once(form: FormData) -> dict[str, Any]:
    if len(form.multi_items()) != len(form):
        raise MalformedRequest("A parameter is given twice")  # RFC 6749, 3.2
    return dict(form)


def _basic(request: Request, fields: Mapping[str, Any]) -> dict[str, str]:
    """The client of an `Authorization: Basic` header; its parts are form-encoded (RFC 6749, 2.3.1)."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return {}
    if "client_secret" in fields:
        raise MalformedRequest("The client authenticates in the header and in the body")
    try:
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        colon = client_id = secret = ""
    if not colon:
        raise MalformedRequest("The header Authorization: Basic cannot be read")
    return {"client_id": unquote_plus(client_id), "client_secret": unquote_plus(secret)}
