"""What travels with a job: whose it is, what it is to do, and where in a trace it was asked for."""

from typing import Any
from uuid import UUID

import msgspec


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of `args`. The database works the column `tenant_id` out of it."""

    tenant_id: UUID
    arguments: dict[str, Any]
    """As JSON has them; the task's signature says what they are."""
    traceparent: str | None = None
    request_id: str | None = None
