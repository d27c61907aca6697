"""Grants: amounts that usage burns down, in the order of rule 24."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from usage_service.domain.entitlement_periods import Cycle
from usage_service.domain.errors import InvalidGrant

ZERO: Final = Decimal(0)
DEFAULT_PRIORITY: Final = 100
LOWEST_PRIORITY: Final = 255
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An amount from `effective_at` on, until `expires_at` or `voided_at`, both exclusive.

    Where a usage period ends, what is left goes over into the next one: at least `rollover_min`, at most
    `rollover_max` (None: all of it). A `recurrence` refills it to its amount.
    """

    id: str
    amount: Decimal
    effective_at: datetime
    created_at: datetime
    expires_at: datetime | None = None
    voided_at: datetime | None = None
    priority: int = DEFAULT_PRIORITY
    rollover_min: Decimal = ZERO
    rollover_max: Decimal | None = None
    recurrence: Cycle | None = None

    @property
    def ends_at(self) -> datetime:
        return min(self.expires_at or _NEVER, self.voided_at or _NEVER)

    def active_at(self, moment: datetime) -> bool:
        return self.effective_at <= moment < self.ends_at

    def fills_at(self, moment: datetime) -> bool:
        """Whether it begins or is refilled at an instant, while it is active."""
        if not self.active_at(moment):
            return False
        recurs = self.recurrence is not None and self.recurrence.period_at(moment).start == moment
        return recurs or self.effective_at == moment

    def rolled_over(self, left: Decimal) -> Decimal:
        """What of `left` the next period begins with."""
        kept = max(self.rollover_min, left)
        return kept if self.rollover_max is None else min(self.rollover_max, kept)

    @property
    def carries(self) -> bool:
        """Whether anything can outlive the end of a usage period."""
        return self.rollover_max is None or self.rollover_max > 0


def burn_rank(grant: Grant) -> tuple[int, datetime, datetime, str]:
    """By priority (the lowest number first), then earliest expiry (none is last), then age, then id."""
    return (grant.priority, grant.expires_at or _NEVER, grant.created_at, grant.id)


def burn_order(grants: Iterable[Grant]) -> list[Grant]:
    return sorted(grants, key=burn_rank)


def check_grant(grant: Grant) -> None:
    """Raises InvalidGrant with the field and the reason."""
    if not grant.amount.is_finite() or grant.amount <= 0:
        raise InvalidGrant("amount", "more than zero")
    if grant.expires_at is not None and grant.expires_at <= grant.effective_at:
        raise InvalidGrant("expires_at", "after effective_at: a grant holds from the one up to the other")
    if not 0 <= grant.priority <= LOWEST_PRIORITY:
        raise InvalidGrant("priority", f"0 to {LOWEST_PRIORITY}; the lowest number burns first")
    if grant.rollover_min < 0:
        raise InvalidGrant("rollover_min", "zero or more")
    if grant.rollover_max is not None and grant.rollover_max < grant.rollover_min:
        raise InvalidGrant("rollover_max", "at least rollover_min")
