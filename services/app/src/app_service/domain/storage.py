"""What is stored, and how it changes."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class StorageChange:
    """A tenant's stored bytes after one change.

    `at` orders the changes of a tenant strictly, even where its (test) clock stands still, so that whoever reads the
    events in the order of their time ends with the last total.
    """

    total: int
    delta: int
    at: datetime

    def as_event(self) -> dict[str, int]:
        """The data of a `storage.bytes` event, in bytes."""
        return {"bytes": self.total, "delta": self.delta}


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as it is after an upload; `created` tells a new one from one that replaced another's content."""

    name: str
    content_type: str
    size: int
    sha256: bytes
    version: int
    updated_at: datetime
    created: bool
