"""What the console knows, in memory: this period's usage and amounts of every tenant, fed by rollup records.

Rollups are absolute, so a change is the difference to the row's last state. The board keeps the states of a bounded
number of rows; a record for a row that it has let go cannot be placed, and makes the board ask for a new snapshot.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from billing_service.domain.errors import BillingRuleError
from billing_service.domain.periods import Period, billed_usage
from billing_service.domain.plans import Plan
from billing_service.domain.rating import rate
from billing_service.domain.usage import MeterUsage
from billing_service.usage.records import Rollup

SECONDS_SHOWN: Final = 120
RowKey = tuple[UUID, str, datetime, int, str]
Window = tuple[datetime, datetime]
ZERO: Final = Decimal(0)


@dataclass(slots=True)
class MeterTotal:
    count: Decimal = ZERO
    total: Decimal | None = None

    @property
    def quantity(self) -> Decimal:
        return self.count if self.total is None else self.total

    def add(self, count: Decimal, total: Decimal | None) -> None:
        self.count += count
        if total is not None:
            self.total = (self.total or ZERO) + total


@dataclass(frozen=True, slots=True)
class OpenSubscription:
    """A subscription in the period that its tenant is in. Usage before `bill_from` is not billed."""

    plan_code: str
    plan: Plan
    currency: str
    period: Period
    quantities: Mapping[str, Decimal]
    bill_from: datetime | None = None

    @property
    def window(self) -> Window:
        return billed_usage(self.period, self.bill_from)


@dataclass(slots=True)
class TenantBoard:
    """One tenant: the window that is shown, its subscriptions, and what they would cost if they ended now.

    `totals` is by window and meter: for the window shown, and for the period of each subscription, because a tenant
    may have subscriptions with different anchors.
    """

    tenant_id: UUID
    start: datetime
    end: datetime
    subscriptions: tuple[OpenSubscription, ...] = ()
    totals: dict[Window, dict[str, MeterTotal]] = field(default_factory=dict)
    amounts: dict[str, Decimal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for window in ((self.start, self.end), *(each.window for each in self.subscriptions)):
            self.totals.setdefault(window, {})

    @property
    def meters(self) -> dict[str, MeterTotal]:
        """What was counted in the window that is shown."""
        return self.totals[self.start, self.end]

    def add(self, meter: str, at: datetime, count: Decimal, total: Decimal | None) -> None:
        for (start, end), meters in self.totals.items():
            if start <= at < end:
                meters.setdefault(meter, MeterTotal()).add(count, total)

    def rerate(self) -> None:
        amounts: dict[str, Decimal] = {}
        for each in self.subscriptions:
            usage = {
                meter: MeterUsage(total.count, total.total, 0, "")
                for meter, total in self.totals[each.window].items()
                if total.count
            }
            try:
                rated = rate(each.plan, each.currency, each.period, each.quantities, usage)
            except BillingRuleError:
                continue
            amounts[each.currency] = amounts.get(each.currency, ZERO) + rated.total
        self.amounts = amounts


@dataclass(frozen=True, slots=True)
class RowState:
    version: int
    count: Decimal
    total: Decimal | None


class Board:
    """The totals. One event loop feeds and reads it."""

    def __init__(self, tenants: Iterable[TenantBoard], *, row_limit: int, complete: bool) -> None:
        """`complete` says that `seed_row` is going to be given every row of the tenants' windows."""
        self.tenants = {tenant.tenant_id: tenant for tenant in tenants}
        self.needs_snapshot = False
        self._rows: OrderedDict[RowKey, RowState] = OrderedDict()
        self._row_limit = row_limit
        self._complete = complete
        self._dirty: set[UUID] = set(self.tenants)
        self._counted: deque[tuple[int, Decimal]] = deque()

    def seed_row(self, key: RowKey, state: RowState) -> None:
        """A row that the totals of the snapshot already contain."""
        self._rows[key] = state

    def apply(self, rollup: Rollup, second: int) -> None:
        """Take in a rollup record that came in `second`; what is known already changes nothing."""
        tenant = self.tenants.get(rollup.tenant_id)
        if tenant is None:
            self.needs_snapshot = True
            return
        if not tenant.start <= rollup.window_start < tenant.end:
            # Another period than the one shown. A later one means that the tenant's clock has moved on.
            self.needs_snapshot |= rollup.window_start >= tenant.end
            return
        known = self._rows.get(rollup.key)
        if known is None and not self._complete:
            self.needs_snapshot = True
            return
        if known is not None and known.version >= rollup.version:
            return
        count = rollup.count - (known.count if known else ZERO)
        before = known.total if known else None
        total = None if rollup.sum is None and before is None else (rollup.sum or ZERO) - (before or ZERO)
        tenant.add(rollup.meter, rollup.window_start, count, total)
        self._remember(rollup)
        self._dirty.add(tenant.tenant_id)
        self._count(second, max(count, ZERO))  # a correction takes back what was counted long ago

    def rerate(self, limit: int) -> bool:
        """Rate again at most `limit` tenants whose usage has changed; returns whether there were any."""
        batch = min(limit, len(self._dirty))
        for _ in range(batch):
            self.tenants[self._dirty.pop()].rerate()
        return batch > 0

    def counted_by_second(self, now: int) -> list[int]:
        """How many events the meters counted in each of the last SECONDS_SHOWN whole seconds, the oldest first."""
        series = [0] * SECONDS_SHOWN
        for second, count in self._counted:
            age = now - 1 - second
            if 0 <= age < SECONDS_SHOWN:
                series[SECONDS_SHOWN - 1 - age] = int(count)
        return series

    def _remember(self, rollup: Rollup) -> None:
        self._rows[rollup.key] = RowState(rollup.version, rollup.count, rollup.sum)
        self._rows.move_to_end(rollup.key)
        if len(self._rows) > self._row_limit:
            self._rows.popitem(last=False)
            self._complete = False

    def _count(self, second: int, count: Decimal) -> None:
        if self._counted and self._counted[-1][0] == second:
            self._counted[-1] = (second, self._counted[-1][1] + count)
        else:
            self._counted.append((second, count))
            while len(self._counted) > SECONDS_SHOWN + 2:
                self._counted.popleft()

    def keep_rate_of(self, former: "Board") -> None:
        """Go on with the counting rate that another board has seen."""
        self._counted = former._counted  # noqa: SLF001 - the same class
