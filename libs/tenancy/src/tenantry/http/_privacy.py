"""What caches between us and the caller may keep of an answer that was made for a tenant: nothing, unless told so."""

from collections.abc import Iterable
from typing import Final

_CACHE_CONTROL: Final = b"cache-control"
_DEFAULT: Final = ((_CACHE_CONTROL, b"private, no-store"),)
# By what an answer depends on its caller and tenant; Host is part of what every cache keys on.
_VARY: Final = ((b"vary", b"Authorization, Cookie, X-Tenant-ID"),)
_NEVER_KEPT: Final = b"no-store"


def private_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """What is to be added to the headers of an answer to an identified caller.

    An answer that says nothing of caches is kept by none; one that a route lets be kept varies with the caller.
    """
    for name, value in headers:
        if name == _CACHE_CONTROL:
            return () if _NEVER_KEPT in value else _VARY
    return _DEFAULT
