"""What tenants have used in each segment of a course, from committed rollups.

Grants, periods and courses begin and end on whole hours (decision 45), so rollups of hours answer it; the running hour
counts as far as it is counted. Counts and sums of any number of courses are one statement. The other aggregations are
asked as a query of the meter is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import Unavailable
from usage_service.archive.reading import ArchiveReader
from usage_service.domain.entitlement_periods import UsagePeriod
from usage_service.domain.entitlements import ADDITIVE, Course
from usage_service.domain.errors import InvalidWindow
from usage_service.domain.grants import ZERO
from usage_service.domain.meters import Aggregation, Meter
from usage_service.domain.quantities import EXACT
from usage_service.domain.quotas import Quota, period_at
from usage_service.domain.windows import Granularity, Window, hour_down
from usage_service.queries.figures import answer
from usage_service.queries.kept import FiguresEnded
from usage_service.queries.questions import Question

_HOUR: Final = timedelta(hours=1)
_SUMMED: Final = frozenset({Aggregation.COUNT, Aggregation.SUM})

# Each span is a range of the primary key. As a join the planner would hold every span against every hour of the tenant.
_SUMS: Final = text(
    """
    SELECT asked.number - 1 AS number, used.counted, used.summed
      FROM unnest(CAST(:tenants AS uuid[]), CAST(:slugs AS text[]), CAST(:starts AS timestamptz[]),
                  CAST(:ends AS timestamptz[])) WITH ORDINALITY AS asked (tenant_id, slug, opening, closing, number)
     CROSS JOIN LATERAL (
           SELECT sum(rollup.count) AS counted, sum(rollup.sum) AS summed
             FROM system.meter AS meter
             JOIN usage_rollup AS rollup ON rollup.tenant_id = asked.tenant_id AND rollup.meter_id = meter.id
              AND rollup.window_start >= asked.opening AND rollup.window_start < asked.closing
            WHERE meter.slug = asked.slug) AS used
    """
)


class UsageUnknown(Unavailable):
    """What a quota needs of its past is not there now, or not any more."""

    type = "usage-unknown"
    title = "What was used cannot be told"


@dataclass(frozen=True, slots=True)
class Asked:
    """The course of a tenant's quota; `versions` are all versions of its meter, none where nothing meters it."""

    tenant_id: UUID
    versions: Sequence[Meter]
    quota: Quota
    course: Course
    now: datetime

    @property
    def aggregation(self) -> Aggregation | None:
        return self.versions[-1].definition.aggregation if self.versions else None

    @property
    def spans(self) -> list[UsagePeriod]:
        """The segments; a value that lasts is counted up to now, and not to the end of the hour."""
        if self.aggregation is not Aggregation.TIME_WEIGHTED:
            return list(self.course.segments)
        return [UsagePeriod(span.start, min(span.end, self.now)) for span in self.course.segments]


async def measure(
    session: AsyncSession, asked: Sequence[Asked], archive: ArchiveReader | None
) -> list[list[Decimal] | UsageUnknown]:
    """The usage of each segment of each course, or why it cannot be told of that one.

    `archive` is for the few hours that only raw events can answer, where PostgreSQL has them no longer.
    """
    summed = [each for each in asked if each.aggregation in _SUMMED]
    sums = iter(await _sums(session, summed))
    found: list[list[Decimal] | UsageUnknown] = []
    for each in asked:
        try:
            usage = next(sums) if each.aggregation in _SUMMED else await _asked_of_the_meter(session, each, archive)
        except (InvalidWindow, FiguresEnded, Unavailable) as error:
            found.append(UsageUnknown(str(error)))
        else:
            found.append(usage)
    return found


def hour_after(moment: datetime) -> datetime:
    return hour_down(moment) + _HOUR


def hour_up(moment: datetime) -> datetime:
    floor = hour_down(moment)
    return floor if floor == moment else floor + _HOUR


async def _sums(session: AsyncSession, asked: Sequence[Asked]) -> list[list[Decimal]]:
    found = [[ZERO] * len(each.course.segments) for each in asked]
    places = [(place, number, span) for place, each in enumerate(asked) for number, span in enumerate(each.spans)]
    if not places:
        return found
    parameters = {
        "tenants": [asked[place].tenant_id for place, _, _ in places],
        "slugs": [asked[place].versions[-1].slug for place, _, _ in places],
        "starts": [span.start for _, _, span in places],
        "ends": [span.end for _, _, span in places],
    }
    for row in await session.execute(_SUMS, parameters):
        place, number, _ = places[row.number]
        value = row.counted if asked[place].aggregation is Aggregation.COUNT else row.summed
        found[place][number] = Decimal(value or 0)
    return found


async def _asked_of_the_meter(session: AsyncSession, asked: Asked, archive: ArchiveReader | None) -> list[Decimal]:
    if asked.aggregation is None:
        return [ZERO] * len(asked.course.segments)
    if asked.aggregation in ADDITIVE:
        return await _figures(session, asked, asked.spans, archive)
    return await _differences(session, asked, archive)


async def _differences(session: AsyncSession, asked: Asked, archive: ArchiveReader | None) -> list[Decimal]:
    """By how much each span moves the figure of its period so far."""
    found = []
    period, so_far = None, ZERO
    for span in asked.spans:
        if (current := period_at(asked.quota, span.start)) != period:
            period, so_far = current, ZERO
        [figure] = await _figures(session, asked, [UsagePeriod(current.start, span.end)], archive)
        with localcontext(EXACT):
            found.append(figure - so_far)
        so_far = figure
    return found


async def _figures(
    session: AsyncSession, asked: Asked, spans: Sequence[UsagePeriod], archive: ArchiveReader | None
) -> list[Decimal]:
    """The meter's figure of each span; spans are in order and do not overlap."""
    windows = [Window(span.start, span.end, span.start, span.end) for span in spans if span.start < span.end]
    question = Question(windows=windows, granularity=Granularity.NONE)
    figures = await answer(session, asked.tenant_id, asked.versions, question, archive)
    known = {figure.window_start: Decimal(figure.value or 0) for figure in figures}
    return [known.get(span.start, ZERO) for span in spans]
