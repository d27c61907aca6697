"""What is published of one feature of one tenant on `usage.balances.v1`."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

WATERMARK_KEY: Final = f"{UUID(int=0)}/watermark"
"""The key of the record that says up to when balances hold what was received: the `config` of a feature of nobody, so
that a reader to whom it means nothing keeps one balance more, and no error.
"""


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """`balance` is what is left of `limit` until `resets_at`; a feature that is not metered has none of them.

    Only a `hard` quota ends when nothing is left. `config` is that of a static feature.
    """

    tenant_id: str
    feature: str
    has_access: bool
    hard: bool = False
    balance: Decimal | None = None
    usage: Decimal | None = None
    overage: Decimal | None = None
    limit: Decimal | None = None
    period_start: datetime | None = None
    resets_at: datetime | None = None
    config: Any = None
