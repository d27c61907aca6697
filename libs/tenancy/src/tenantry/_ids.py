"""Identifiers: UUIDv7, made in the application so that a row's id is known before it is written."""

import sys
from uuid import UUID

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils.compat import uuid7 as _uuid7

    def uuid7() -> UUID:
        """A time-ordered UUID (RFC 9562, version 7)."""
        return _uuid7()


__all__ = ["uuid7"]
