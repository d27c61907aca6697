"""Lists: keyset pages with opaque cursors."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Generic, TypeVar

import msgspec
from fastapi import Query
from pydantic import BaseModel

from tenantry._errors import MalformedRequest

Item = TypeVar("Item")
Keys = TypeVar("Keys")

_CHECK_BYTES: Final = 8
_MAX_CURSOR_LENGTH: Final = 2048

Limit = Annotated[int, Query(ge=1, le=200, description="How many items a page holds at most.")]
"""The query parameter `limit`; give it a default, as in `limit: Limit = 50`."""

Cursor = Annotated[
    str | None, Query(max_length=_MAX_CURSOR_LENGTH, description="`next_cursor` of the page before, unchanged.")
]
"""The query parameter `cursor`; its default is None, the first page."""


class Page(BaseModel, Generic[Item]):
    """One page of a list; `next_cursor` is null on the last."""

    items: Sequence[Item]
    next_cursor: str | None = None


def encode_cursor(keys: object, *, of: str = "") -> str:
    """An opaque cursor that holds the sort key, or a tuple of keys, of a page's last item; `of` names its list."""
    payload = msgspec.json.encode(keys)
    return urlsafe_b64encode(_check(payload, of) + payload).rstrip(b"=").decode()


def decode_cursor(cursor: str, keys: type[Keys], *, of: str = "") -> Keys:
    """The sort keys in a cursor, as `keys` types them: `UUID`, or `tuple[datetime, UUID]`.

    Raises `MalformedRequest` for a cursor that was changed, or belongs to another list. The check detects errors, it
    is no signature: what a cursor selects is bounded by the tenant of the session, whatever it says.
    """
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        payload = raw[_CHECK_BYTES:]
        if raw[:_CHECK_BYTES] != _check(payload, of):
            raise _malformed()
        found = msgspec.json.decode(payload, type=keys)
    except (Base64Error, ValueError, msgspec.MsgspecError) as error:
        raise _malformed() from error
    # Nobody wrote a time without an offset here, and it cannot be compared with one that has it.
    if any(isinstance(key, datetime) and key.tzinfo is None for key in _each(found)):
        raise _malformed()
    return found


def _each(keys: object) -> tuple[object, ...]:
    return keys if isinstance(keys, tuple) else (keys,)


def _check(payload: bytes, of: str) -> bytes:
    return hashlib.blake2b(payload, digest_size=_CHECK_BYTES, person=of.encode()[:16]).digest()


def _malformed() -> MalformedRequest:
    return MalformedRequest("The cursor is not one of this list; start without one.")
