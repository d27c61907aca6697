"""The state of one window of one meter: what can be merged, in any order, into any coarser window.

`count` counts the events that the meter counted. `sum`, `minimum` and `maximum` are kept by the aggregations that need
them. A state is never a delta: adding two states of disjoint sets of events gives the state of their union.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from usage_service.domain.meters import Aggregation, CompiledMeter
from usage_service.domain.quantities import EXACT, number_text, quantity_of

Quantity = int | Decimal
RATIO_DIGITS = 18  # digits after the point of an average that does not end


@dataclass(slots=True)
class RollupState:
    count: int = 0
    sum: Quantity | None = None
    minimum: Quantity | None = None
    maximum: Quantity | None = None

    def merge(self, other: RollupState) -> None:
        self.count += other.count
        self.sum = _added(self.sum, other.sum)
        if other.minimum is not None and (self.minimum is None or other.minimum < self.minimum):
            self.minimum = other.minimum
        if other.maximum is not None and (self.maximum is None or other.maximum > self.maximum):
            self.maximum = other.maximum

    def figure(self, aggregation: Aggregation) -> str | None:
        """The meter's value in this window, as an answer says it; None where nothing was counted (but counts are 0)."""
        if aggregation is Aggregation.COUNT:
            return str(self.count)
        if aggregation is Aggregation.AVG:
            return _average(self.sum or 0, self.count) if self.count else None
        value = {Aggregation.SUM: self.sum, Aggregation.MIN: self.minimum, Aggregation.MAX: self.maximum}[aggregation]
        return None if value is None else number_text(value)


def _added(left: Quantity | None, right: Quantity | None) -> Quantity | None:
    if left is None:
        return right
    return left if right is None else add(left, right)


def add(left: Quantity, right: Quantity) -> Quantity:
    """Exact whatever the context of the thread is."""
    if type(left) is int and type(right) is int:
        return left + right
    return EXACT.add(Decimal(left), Decimal(right))


def _average(total: Quantity, count: int) -> str:
    numerator, denominator = Decimal(total).as_integer_ratio()
    scaled, rest = divmod(abs(numerator) * 10**RATIO_DIGITS, denominator * count)
    if 2 * rest >= denominator * count:
        scaled += 1
    return number_text(EXACT.scaleb(Decimal(scaled if numerator >= 0 else -scaled), -RATIO_DIGITS))


def observe(meter: CompiledMeter, data: Mapping[str, object], state: RollupState) -> None:
    """Counts one event that matches the meter. Raises InvalidQuantity, and changes nothing, otherwise."""
    if meter.value is not None:
        value = quantity_of(meter.value(data))
        if meter.sums:
            state.sum = value if state.sum is None else add(state.sum, value)
        elif meter.extremes:
            if state.minimum is None or value < state.minimum:
                state.minimum = value
            if state.maximum is None or value > state.maximum:
                state.maximum = value
    state.count += 1
