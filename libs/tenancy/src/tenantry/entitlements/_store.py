"""The balances that are known here."""

from datetime import datetime
from uuid import UUID

from tenantry.entitlements._balance import Balance

Key = tuple[UUID, str]


class BalanceStore:
    """Balances by tenant and feature. Not thread-safe: one event loop feeds and reads it."""

    def __init__(self) -> None:
        self._balances: dict[Key, Balance] = {}
        self._versions: dict[Key, int] = {}
        self.watermark: datetime | None = None
        """Everything that was received until then is in the balances; None where nobody says."""

    def __len__(self) -> int:
        return len(self._balances)

    def get(self, tenant_id: UUID, feature: str) -> Balance | None:
        return self._balances.get((tenant_id, feature))

    def apply(self, tenant_id: UUID, feature: str, balance: Balance | None, version: int) -> bool:
        """Takes in a balance, or its end, unless its version is known already; returns whether it was new."""
        key = (tenant_id, feature)
        if version <= self._versions.get(key, -1):
            return False
        self._versions[key] = version
        if balance is None:
            self._balances.pop(key, None)
        else:
            self._balances[key] = balance
        return True

    def age_seconds(self, now: float) -> float:
        """How old the watermark is at `now`, in seconds of the epoch; 0 where there is none."""
        return 0.0 if self.watermark is None else max(0.0, now - self.watermark.timestamp())
