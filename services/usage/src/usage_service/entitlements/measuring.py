"""What a tenant has used in each segment of a course: figures of the quota's meter, from committed rollups.

Grants and periods begin and end on whole hours (decision 45), so hours answer it; the running hour counts as far as it
is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usage_service.domain.entitlement_periods import UsagePeriod
from usage_service.domain.entitlements import ADDITIVE, Course, Quota, period_at
from usage_service.domain.grants import ZERO
from usage_service.domain.meters import Aggregation, Meter
from usage_service.domain.quantities import EXACT
from usage_service.domain.windows import Granularity, Window
from usage_service.queries.figures import answer
from usage_service.queries.questions import Question

_HOUR: Final = timedelta(hours=1)


async def measure(
    session: AsyncSession, tenant_id: UUID, versions: Sequence[Meter], quota: Quota, course: Course
) -> list[Decimal]:
    """The usage of each segment of a course. `versions` are all versions of the quota's meter."""
    aggregation = versions[-1].definition.aggregation
    spans = list(course.segments)
    if spans and aggregation is not Aggregation.TIME_WEIGHTED:
        # Whole, so that the running hour is read as a rollup and not event by event.
        spans[-1] = UsagePeriod(spans[-1].start, hour_up(spans[-1].end))
    if aggregation in ADDITIVE:
        return await _figures(session, tenant_id, versions, spans)
    return await _differences(session, tenant_id, versions, quota, spans)


def hour_down(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hour_up(moment: datetime) -> datetime:
    floor = hour_down(moment)
    return floor if floor == moment else floor + _HOUR


async def _figures(
    session: AsyncSession, tenant_id: UUID, versions: Sequence[Meter], spans: Sequence[UsagePeriod]
) -> list[Decimal]:
    """The meter's figure of each span; spans are in order and do not overlap."""
    windows = [Window(span.start, span.end, span.start, span.end) for span in spans]
    figures = await answer(session, tenant_id, versions, Question(windows=windows, granularity=Granularity.NONE))
    known = {figure.window_start: Decimal(figure.value or 0) for figure in figures}
    return [known.get(span.start, ZERO) for span in spans]


async def _differences(
    session: AsyncSession, tenant_id: UUID, versions: Sequence[Meter], quota: Quota, spans: Sequence[UsagePeriod]
) -> list[Decimal]:
    """By how much each span moves the figure of its period so far."""
    found = []
    period, so_far = None, ZERO
    for span in spans:
        if (current := period_at(quota, span.start)) != period:
            period, so_far = current, ZERO
        [figure] = await _figures(session, tenant_id, versions, [UsagePeriod(current.start, span.end)])
        with localcontext(EXACT):
            found.append(figure - so_far)
        so_far = figure
    return found
