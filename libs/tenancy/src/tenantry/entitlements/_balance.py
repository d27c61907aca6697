"""What is published of one feature of one tenant on `usage.balances.v1`."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec


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
