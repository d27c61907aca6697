"""Whether what a question needs is still kept: an answer of what is left would be a wrong figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import TenantryError
from usage_service.queries.repository import Range

YOUNGEST_END: Final = timedelta(days=89)
"""Hours end no earlier, whatever the settings."""

_ENDED = text(
    """
    SELECT max(until) FROM ended_rollup WHERE tenant_id = :tenant AND meter_id = ANY(CAST(:meters AS uuid[]))
    """
)
_ALL: Final = UUID(int=0)
"""The meter of rows that are of all of a tenant's."""
_CUT = text(
    """
    SELECT min(window_start) FROM usage_rollup
     WHERE tenant_id = :tenant AND meter_id = ANY(CAST(:meters AS uuid[]))
       AND window_start = ANY(CAST(:midnights AS timestamptz[])) AND whole_day
    """
)


class FiguresEnded(TenantryError):
    """A part of the range is no longer kept as finely as it was asked for."""

    status = 410
    type = "figures-ended"
    title = "What was counted then is no longer kept in this detail"


async def check_kept(
    session: AsyncSession, tenant_id: UUID, meters: Sequence[UUID], spans: Sequence[Range], *, hours: Sequence[Range]
) -> None:
    """Raises FiguresEnded where days of the spans have ended, or of the hours among them only whole days are kept.

    Both are in order. Once a day has ended nothing is left that would tell that it had events.
    """
    recent = datetime.now(UTC) - YOUNGEST_END
    if not spans or spans[0][0] >= recent:
        return
    ended: date | None = await session.scalar(_ENDED, {"tenant": tenant_id, "meters": [*meters, _ALL]})
    if ended is not None and spans[0][0] < _midnight(ended):
        raise FiguresEnded(f"Days before {ended} have ended; ask from {ended}T00:00:00Z on.")
    midnights = sorted({_midnight(moment) for moment in _inside_days(hours) if moment < recent})
    if midnights:
        asked = {"tenant": tenant_id, "meters": list(meters), "midnights": midnights}
        cut: datetime | None = await session.scalar(_CUT, asked)
        if cut is not None:
            raise FiguresEnded(
                f"Of {cut.astimezone(UTC).date()} whole days (UTC) are kept and no hours: "
                "ask for windows that begin and end at midnight UTC."
            )


def _inside_days(spans: Iterable[Range]) -> Iterable[datetime]:
    return (moment for span in spans for moment in span if moment != _midnight(moment))


def _midnight(moment: date) -> datetime:
    day = moment.astimezone(UTC).date() if isinstance(moment, datetime) else moment
    return datetime.combine(day, time(), UTC)
