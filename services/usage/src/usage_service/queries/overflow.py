"""Hours that were full: raw events of further groups are in `__other__`, as the rollups of those hours have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usage_service.domain.meters import CompiledMeter, Group
from usage_service.domain.windows import hour_down
from usage_service.queries.repository import Range, find_full_hours

FullHours = Mapping[tuple[UUID, datetime], frozenset[UUID]]
"""The groups with a rollup of their own, by version of the meter and hour; only of hours that were full."""

_HOUR: Final = timedelta(hours=1)

NEVER_FULL: Final[FullHours] = {}


async def full_hours(
    session: AsyncSession, tenant_id: UUID, meters: Sequence[CompiledMeter], spans: Sequence[Range]
) -> FullHours:
    """The full hours of these versions of a meter that the spans touch."""
    overflowing = [(meter.meter.id, UUID(bytes=meter.overflow.hash)) for meter in meters if meter.dimensions]
    if not overflowing or not spans:
        return NEVER_FULL
    found = await find_full_hours(session, tenant_id, overflowing, sorted(set(_hours(spans))))
    return {(row.meter_id, row.window_start): frozenset(row.own) for row in found}


def _hours(spans: Sequence[Range]) -> Iterator[datetime]:
    for first, last in spans:
        hour = hour_down(first)
        while hour < last:
            yield hour
            hour += _HOUR


def placed(group: Group, meter: CompiledMeter, time: datetime, full: FullHours) -> Group:
    """The group in which an event was counted."""
    own = full.get((meter.meter.id, hour_down(time))) if full else None
    return group if own is None or UUID(bytes=group.hash) in own else meter.overflow
