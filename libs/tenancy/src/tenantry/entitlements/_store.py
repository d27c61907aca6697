"""The balances that are known here."""

from collections.abc import Callable
from uuid import UUID

from tenantry.entitlements._balance import Balance

Key = tuple[UUID, str]


class BalanceStore:
    """Balances by tenant and feature. Not thread-safe: one event loop feeds and reads it."""

    def __init__(self) -> None:
        self._balances: dict[Key, Balance] = {}
        self._versions: dict[Key, int] = {}
        self._on_period: Callable[[Key], object] | None = None

    def __len__(self) -> int:
        return len(self._balances)

    def watch_periods(self, on_period: Callable[[Key], object]) -> None:
        """Have `on_period` called when another usage period begins for a key."""
        self._on_period = on_period

    def get(self, tenant_id: UUID, feature: str) -> Balance | None:
        return self._balances.get((tenant_id, feature))

    def apply(self, tenant_id: UUID, feature: str, balance: Balance | None, version: int) -> bool:
        """Takes in a balance, or its end, unless its version is known already; returns whether it was new."""
        key = (tenant_id, feature)
        if version <= self._versions.get(key, -1):
            return False
        self._versions[key] = version
        before = self._balances.get(key)
        if balance is None:
            self._balances.pop(key, None)
        else:
            self._balances[key] = balance
        ended = before is not None and (balance is None or balance.period_start != before.period_start)
        if ended and self._on_period is not None:
            self._on_period(key)
        return True
