"""The headers that decide about the caller, read in exactly one way or not at all."""

from collections.abc import Iterable
from typing import Final

from tenantry._errors import MalformedRequest
from tenantry.identity._credentials import CSRF_HEADER

TENANT_HEADER: Final = "X-Tenant-ID"
API_KEY_HEADER: Final = "X-API-Key"
CONTEXT_HEADER: Final = "X-Tenant-Context"

AUTHORIZATION: Final = b"authorization"
COOKIE: Final = b"cookie"
HOST: Final = b"host"
FORWARDED_HOST: Final = b"x-forwarded-host"
ORIGIN: Final = b"origin"
TENANT: Final = TENANT_HEADER.lower().encode()
API_KEY: Final = API_KEY_HEADER.lower().encode()
CONTEXT: Final = CONTEXT_HEADER.lower().encode()
REQUEST_ID: Final = b"x-request-id"
CSRF: Final = CSRF_HEADER.lower().encode()

_READ: Final = frozenset({AUTHORIZATION, COOKIE, HOST, FORWARDED_HOST, ORIGIN, TENANT, API_KEY, CONTEXT, CSRF})


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers that decide about the caller. Raises `MalformedRequest` for one that is there twice."""
    read: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            if name in read:
                # HTTP/2 allows several Cookie headers (RFC 9113, 8.2.3), which are one in parts.
                if name != COOKIE:
                    raise MalformedRequest(f"The header {name.decode()} is there more than once.")
                read[name] += b"; " + value
            else:
                read[name] = value
    return read
