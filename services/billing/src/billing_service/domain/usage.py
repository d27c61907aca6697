"""What a meter counted in a period, and which version of it that was."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class MeterUsage:
    """The rollups of one meter in one period, merged.

    `rollups` counts them and `digest` is SHA-256 over their keys and versions in key order: together they are the
    usage version that an invoice line keeps, by which a later adjustment knows what has been billed. `unbillable`
    names an aggregation among them of which no quantity can be made, such as "max".
    """

    count: Decimal
    total: Decimal | None
    rollups: int
    digest: str
    unbillable: str | None = None

    @property
    def quantity(self) -> Decimal:
        """The meter's figure: the sum of a meter that sums a value, else the number of events."""
        return self.count if self.total is None else self.total


NO_USAGE = MeterUsage(count=Decimal(0), total=None, rollups=0, digest="")
