"""A subscription as it is stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from billing_service.domain.periods import Anchor, Interval, Schedule, zone_named


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Pins one version of a plan. `ends_at` is the instant of cancellation; its local day is still billed."""

    tenant_id: UUID
    id: UUID
    account: str
    seller_code: str
    plan_code: str
    plan_version: int
    currency: str
    quantities: Mapping[str, Decimal]
    time_zone: str
    anchor: Anchor
    start_at: datetime
    ends_at: datetime | None
    version: int
    created_at: datetime

    @property
    def begins(self) -> datetime:
        """Where its first period does, whatever the interval."""
        return self.schedule(Interval.DAY).begins

    def schedule(self, interval: Interval) -> Schedule:
        """The billing calendar under a plan of this interval."""
        return Schedule(self.start_at, interval, zone_named(self.time_zone), self.anchor, self.ends_at)
