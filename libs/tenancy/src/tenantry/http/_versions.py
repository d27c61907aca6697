"""Versions of documents on the wire: `ETag`, `If-Match` and `If-None-Match` (RFC 9110, 8.8.3, 13.1.1 and 13.1.2)."""

import re
from typing import Annotated, Final

from fastapi import Depends, Header

from tenantry._errors import MalformedRequest, StaleVersion

ABSENT: Final = 0
"""The version of a document that is not there; the first one is 1."""

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


async def _expected_version(
    if_match: Annotated[str | None, Header()] = None, if_none_match: Annotated[str | None, Header()] = None
) -> int | None:
    if if_none_match is None:
        return expected_version(if_match)
    if if_match is not None or if_none_match.strip() != "*":
        raise MalformedRequest("The header If-None-Match is * here, without If-Match: only where there is nothing yet.")
    return ABSENT


ExpectedVersion = Annotated[int | None, Depends(_expected_version)]
"""The version that the caller's `If-Match` demands, `ABSENT` with `If-None-Match: *`, None without either.

Compare it under the row's lock.
"""
