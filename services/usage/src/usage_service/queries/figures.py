"""A meter's figures by window: whole hours from rollups, ragged edges and minutes from raw events.

Both sources become the same mergeable states and go through the same filters, so they cannot disagree. A raw event is
counted by the meter version that counted it when it was stored, which its catalogue version tells.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from usage_service.archive.reading import ArchiveReader
from usage_service.domain.instants import microseconds
from usage_service.domain.meters import Aggregation, Meter
from usage_service.domain.rollups import At, LatestState, RollupState, Sample, State, empty_state
from usage_service.domain.windows import Granularity
from usage_service.queries.kept import check_kept
from usage_service.queries.questions import MAX_FIGURES, Question, Reading, Values, decode_group
from usage_service.queries.repository import stream_latest, stream_rollups
from usage_service.queries.series import integrals
from usage_service.queries.uniques import unique_counts

# Who asks for zeros gets them where zero is what was counted: a sum, not an extreme, an average or a sample.
_ZERO: Final = frozenset({Aggregation.COUNT, Aggregation.SUM, Aggregation.UNIQUE_COUNT, Aggregation.TIME_WEIGHTED})
# Of no events at all these are still numbers (rule 9).
_COUNTS: Final = frozenset({Aggregation.COUNT, Aggregation.UNIQUE_COUNT})

Texts = dict[tuple[int, Values], str | None]
"""Figures by window number and group."""


@dataclass(frozen=True, slots=True)
class Figure:
    """`first` and `last` bound the part of the window that was asked for: the events in it are behind the value."""

    window_start: datetime
    window_end: datetime
    value: str | None
    group: dict[str, str]
    first: datetime
    last: datetime


async def answer(
    session: AsyncSession,
    tenant_id: UUID,
    versions: Sequence[Meter],
    question: Question,
    archive: ArchiveReader | None = None,
    *,
    most: int = MAX_FIGURES,
) -> list[Figure]:
    """The figures in order of window and group; windows without events only where zeroes are asked for.

    `versions` are all versions of one meter; without the archive, raw events of its days are missing. Raises
    InvalidWindow for a dimension that the meter does not have, and for `most` figures and more; FiguresEnded where a
    part of them is no longer kept.
    """
    question.check(versions)
    reading = Reading(session, tenant_id, versions, question, archive, most)
    spans, hours = ([piece.span for piece in pieces] for pieces in (reading.pieces, reading.hours))
    await check_kept(session, tenant_id, reading.meter_ids, spans, hours=hours)
    if reading.aggregation is Aggregation.UNIQUE_COUNT:
        texts: Texts = {key: str(count) for key, count in (await unique_counts(reading)).items()}
    elif reading.aggregation is Aggregation.TIME_WEIGHTED:
        texts = {**await integrals(reading)}
    else:
        states = await _merged(reading)
        texts = {key: state.figure(reading.aggregation) for key, state in states.items()}
    _fill(texts, reading)
    reading.check_size(len(texts))
    return [_figure(question, number, values, text) for (number, values), text in sorted(texts.items(), key=_place)]


async def _merged(reading: Reading) -> dict[tuple[int, Values], State]:
    """States of the aggregations whose states of windows merge into that of the range, whatever their order."""
    question = reading.question
    states: dict[tuple[int, Values], State] = {}

    def add(window: int, values: Values, state: State) -> None:
        states.setdefault((window, values), empty_state(reading.aggregation)).merge(state)
        reading.check_size(len(states))

    by_group = bool(question.group_by or question.tests)
    hours, edges = reading.hours, reading.edges
    find, read = (stream_latest, _latest) if reading.aggregation is Aggregation.LATEST else (stream_rollups, _added)
    spans = [piece.span for piece in hours]
    async for row in find(reading.session, reading.tenant_id, reading.meter_ids, spans, by_group=by_group):
        group = decode_group(row.groups) if by_group else {}
        if question.passes(group):
            add(hours[row.bucket - 1].window, question.values(group), read(row))
    starts = [piece.span[0] for piece in edges]
    async for time, found, state in reading.raw([piece.span for piece in edges]):
        values = question.values(decode_group(found.text)) if question.group_by else ()
        add(edges[bisect_right(starts, time) - 1].window, values, state)
    return states


def _added(row: Row[Any]) -> State:
    return RollupState(row.counted, row.sum, row.minimum, row.maximum)


def _latest(row: Row[Any]) -> State:
    at = At(
        microseconds(row.latest_time), microseconds(row.latest_received_at), row.latest_partition, row.latest_offset
    )
    return LatestState(1, Sample(at, row.latest))


def _fill(texts: Texts, reading: Reading) -> None:
    question, aggregation = reading.question, reading.aggregation
    if question.fill_zero:
        groups = {values for _, values in texts} or ({()} if not question.group_by else set())
        reading.check_size(len(groups) * len(question.windows))
        for number in range(len(question.windows)):
            for values in groups:
                texts.setdefault((number, values), "0" if aggregation in _ZERO else None)
    elif question.granularity is Granularity.NONE and not question.group_by:
        for number in range(len(question.windows)):
            texts.setdefault((number, ()), "0" if aggregation in _COUNTS else None)


def _place(item: tuple[tuple[int, Values], str | None]) -> tuple[int, Values]:
    return item[0]


def _figure(question: Question, number: int, values: Values, text: str | None) -> Figure:
    window = question.windows[number]
    group = dict(zip(question.group_by, values, strict=True))
    return Figure(window.start, window.end, text, group, window.first, window.last)
