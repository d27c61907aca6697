"""Use case of evidence: a meter's count and sum, worked out from raw events alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from usage_service.archive.reading import ArchiveReader, joined
from usage_service.domain.meters import Aggregation, CompiledMeter, Meter
from usage_service.domain.rollups import RollupState
from usage_service.evidence.repository import find_corrections, stream_events
from usage_service.queries.overflow import NEVER_FULL
from usage_service.queries.questions import Behind

Offsets = Mapping[int, int]
"""A cut: by partition of the events' topic, the first offset that is not in it. What it does not name is not in it."""


@dataclass(slots=True)
class Evidence:
    """`at_cut` is what the events in the cut came to when it was made; `now` is what all events come to today.

    Where the meter's figure is a sum, each event of a version that counts is one in it. `corrections` are those that
    took something out of the range behind the cut.
    """

    at_cut: RollupState = field(default_factory=RollupState)
    now: RollupState = field(default_factory=RollupState)
    corrections: list[Row[Any]] = field(default_factory=list)


async def find_evidence(
    session: AsyncSession,
    archive: ArchiveReader,
    tenant_id: UUID,
    versions: Sequence[Meter],
    span: tuple[datetime, datetime],
    cut: Offsets,
) -> Evidence:
    """Of one tenant, from the raw events in [first, last), wherever they are kept; `versions` are all of one meter.

    Reads every event of the range. Of aggregations other than count and sum, `sum` means nothing.
    """
    days = days_of(span)
    corrections = {(row.identity, row.day): row for row in await find_corrections(session, tenant_id, days)}
    behind = Behind([CompiledMeter.of(meter) for meter in versions], (), NEVER_FULL)
    event_type = versions[-1].definition.event_type
    found = Evidence()
    stored = stream_events(session, tenant_id, event_type, span, days)
    archived = archive.stream(tenant_id, event_type, [span], received_before=None, ordered=False)
    async for row in joined(stored, archived, ordered=False):
        counted = behind.count(row)
        if counted is None or not isinstance(counted[1], RollupState):
            continue
        state = counted[1]
        state.sum = state.count if state.sum is None else state.sum
        correction = corrections.get((row.identity, row.event_time.astimezone(UTC).date()))
        if correction is None:
            found.now.merge(state)
        if _is_in(row, cut):
            if correction is None or not _is_in(correction, cut):
                found.at_cut.merge(state)
            if correction is not None and not _is_in(correction, cut):
                found.corrections.append(correction)
    return found


def days_of(span: tuple[datetime, datetime]) -> tuple[date, date]:
    """The first and the last UTC day of [first, last)."""
    return span[0].astimezone(UTC).date(), (span[1] - timedelta(microseconds=1)).astimezone(UTC).date()


def has_values(versions: Sequence[Meter]) -> bool:
    """Whether the meter's figure is a sum."""
    return any(meter.definition.aggregation is not Aggregation.COUNT for meter in versions)


def _is_in(record: Any, cut: Offsets) -> bool:
    offset: int = record.kafka_offset
    return offset < cut.get(record.kafka_partition, 0)
