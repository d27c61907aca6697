"""A meter's figures by window: whole hours from rollups, ragged edges and minutes from raw events.

Both sources become the same mergeable states and go through the same filters, so they cannot disagree. A raw event is
counted by the meter version that counted it when it was stored, which its catalogue version tells.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from usage_service.domain.errors import InvalidQuantity, InvalidWindow
from usage_service.domain.filters import Predicate
from usage_service.domain.meters import CompiledMeter, Meter
from usage_service.domain.quantities import canonical_number
from usage_service.domain.rollups import Quantity, RollupState, observe
from usage_service.domain.windows import Granularity, Window, pieces
from usage_service.queries.repository import Range, find_rollups, stream_raw

Values = tuple[str, ...]
_decode_group = msgspec.json.Decoder(dict[str, str]).decode
_decode_data = msgspec.json.Decoder(dict[str, Any], float_hook=canonical_number).decode


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a meter. `windows` are in order; `tests` are filters by dimension."""

    windows: Sequence[Window]
    granularity: Granularity
    group_by: tuple[str, ...] = ()
    tests: Sequence[tuple[str, Predicate]] = ()
    fill_zero: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    window_start: datetime
    window_end: datetime
    value: str | None
    group: dict[str, str]


@dataclass(slots=True)
class _Tally:
    """States by window number and group."""

    question: Question
    states: dict[tuple[int, Values], RollupState] = field(default_factory=dict)

    def passes(self, group: Mapping[str, str]) -> bool:
        return all(test(group.get(name, "")) for name, test in self.question.tests)

    def state(self, window: int, group: Mapping[str, str]) -> RollupState:
        values = tuple([group.get(name, "") for name in self.question.group_by])
        return self.states.setdefault((window, values), RollupState())


def check_question(versions: Sequence[Meter], question: Question) -> None:
    """Raises InvalidWindow where the meter has no such dimension."""
    known = {name for meter in versions for name in meter.definition.group_by}
    for loc, name in [("group_by", name) for name in question.group_by] + [
        ("filter", name) for name, _ in question.tests
    ]:
        if name not in known:
            raise InvalidWindow(loc, f"the meter has no dimension {name[:64]!r}; it has {sorted(known)}")


async def answer(session: AsyncSession, tenant_id: UUID, versions: Sequence[Meter], question: Question) -> list[Figure]:
    """The figures in order of window and group; windows without events only where zeroes are asked for.

    `versions` are all versions of one meter. Raises InvalidWindow for a dimension that the meter does not have.
    """
    check_question(versions, question)
    tally = _Tally(question)
    hours: list[tuple[int, Range]] = []
    edges: list[tuple[int, Range]] = []
    for number, window in enumerate(question.windows):
        if question.granularity is Granularity.MINUTE:
            edges.append((number, (window.first, window.last)))
            continue
        parts = pieces(window.first, window.last)
        if parts.hours is not None:
            hours.append((number, parts.hours))
        edges += [(number, edge) for edge in parts.raw]
    await _add_rollups(session, tenant_id, versions, hours, tally)
    await _add_raw(session, tenant_id, versions, edges, tally)
    return _figures(versions[-1], tally)


async def _add_rollups(
    session: AsyncSession, tenant_id: UUID, versions: Sequence[Meter], hours: list[tuple[int, Range]], tally: _Tally
) -> None:
    by_group = bool(tally.question.group_by or tally.question.tests)
    ids = [meter.id for meter in versions]
    for row in await find_rollups(session, tenant_id, ids, [span for _, span in hours], by_group=by_group):
        group = _decode_group(row.groups) if by_group else {}
        if tally.passes(group):
            added = RollupState(row.counted, _quantity(row.sum), _quantity(row.minimum), _quantity(row.maximum))
            tally.state(hours[row.bucket - 1][0], group).merge(added)


async def _add_raw(
    session: AsyncSession, tenant_id: UUID, versions: Sequence[Meter], edges: list[tuple[int, Range]], tally: _Tally
) -> None:
    meters = [CompiledMeter.of(meter) for meter in versions]
    starts = [span[0] for _, span in edges]
    event_type = versions[-1].definition.event_type
    async for row in stream_raw(session, tenant_id, event_type, [span for _, span in edges]):
        meter = _counting(meters, row.catalogue_version)
        data = _decode_data(row.data)
        if meter is None or not meter.matches(data):
            continue
        group = _decode_group(meter.group(data).text)
        if not tally.passes(group):
            continue
        try:
            seen = RollupState()
            observe(meter, data, seen)
        except InvalidQuantity:
            continue
        tally.state(edges[bisect_right(starts, row.event_time) - 1][0], group).merge(seen)


def _counting(meters: Sequence[CompiledMeter], catalogue_version: int) -> CompiledMeter | None:
    for compiled in meters:
        meter = compiled.meter
        if meter.since <= catalogue_version and (meter.until is None or catalogue_version < meter.until):
            return compiled
    return None


def _figures(meter: Meter, tally: _Tally) -> list[Figure]:
    question = tally.question
    if question.fill_zero:
        groups = {values for _, values in tally.states} or ({()} if not question.group_by else set())
        for number in range(len(question.windows)):
            for values in groups:
                # Who asks for zeros gets them where zero is what was counted: a sum, not an extreme or an average.
                tally.states.setdefault((number, values), RollupState(sum=Decimal(0)))
    return [
        Figure(
            question.windows[number].start,
            question.windows[number].end,
            state.figure(meter.definition.aggregation),
            dict(zip(question.group_by, values, strict=True)),
        )
        for (number, values), state in sorted(tally.states.items(), key=lambda item: item[0])
    ]


def _quantity(value: Decimal | None) -> Quantity | None:
    return value
