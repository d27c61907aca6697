"""Versions of documents on the wire: `ETag` and `If-Match` (RFC 9110, 8.8.3 and 13.1.1)."""

import re
from typing import Annotated, Final

from fastapi import Depends, Header

from tenantry._errors import MalformedRequest, StaleVersion

_STRONG: Final = re.compile(r'"(\d{1,18})"', re.ASCII)


def etag(version: int) -> str:
    """The strong entity tag of a document's version."""
    return f'"{version}"'


def if_match(header: str | None, version: int) -> None:
    """Raises `StaleVersion` where an `If-Match` header was sent and does not name `version`."""
    expected = expected_version(header)
    if expected is not None and expected != version:
        raise StaleVersion(f"The document is at version {version}, not {expected}.")


def expected_version(header: str | None) -> int | None:
    """The version that an `If-Match` header demands; None for no header and for `*`. Raises `MalformedRequest`."""
    if header is None or header.strip() == "*":
        return None
    match = _STRONG.fullmatch(header.strip())
    if match is None:
        raise MalformedRequest('The header If-Match is not the ETag of one version, as in "7".')
    return int(match[1])


async def _expected_version(if_match: Annotated[str | None, Header()] = None) -> int | None:
    return expected_version(if_match)


ExpectedVersion = Annotated[int | None, Depends(_expected_version)]
"""The version that the caller's `If-Match` demands, None without one; compare it under the row's lock."""
