"""Integrals over any windows: runs of whole hours from rollups, of edges from raw events, joined in the order of time.

Each group of the meter is a series of its own, and a figure is the sum of the series that it covers: two disks of a
tenant are not one disk that changes its size all the time. Series go on through the versions of a meter as long as its
dimensions stay what they are; those of other dimensions end where the meter was given new ones.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Row

from usage_service.domain.instants import instant, microseconds
from usage_service.domain.meters import eras
from usage_service.domain.quantities import Quantity, add, ratio_text
from usage_service.domain.rollups import At, Sample, SeriesState
from usage_service.domain.series import Integrals, Run
from usage_service.domain.units import microseconds_of
from usage_service.domain.windows import Window, hour_down
from usage_service.queries.questions import Piece, Reading, Values, decode_group
from usage_service.queries.repository import find_carried, find_mixed_hours, stream_runs

_HOUR: Final = timedelta(hours=1)
Runs = dict[int, Run]
"""The runs of a group by number of the piece."""


async def integrals(reading: Reading) -> dict[tuple[int, Values], str]:
    """Figures by window number and group, for those that had a value."""
    totals: dict[tuple[int, Values], Quantity] = {}
    before = 0
    for windows in _stretches(reading.question.windows):
        for era in eras(reading.versions):
            inside = until(windows, era.end)
            if not inside:
                continue
            part = replace(reading, versions=era.versions, question=replace(reading.question, windows=inside))
            for (number, values), total in (await _totals(part)).items():
                place = (before + number, values)
                totals[place] = add(totals.get(place, 0), total)
        before += len(windows)
    unit = microseconds_of(reading.versions[-1].definition.unit)
    return {key: ratio_text(total, unit) for key, total in totals.items()}


def until(windows: Sequence[Window], end: int | None) -> list[Window]:
    """What the windows, which are in order, have before an instant."""
    if end is None:
        return list(windows)
    closing = instant(end)
    return [replace(each, last=min(each.last, closing)) for each in windows if each.first < closing]


def _stretches(windows: Sequence[Window]) -> list[list[Window]]:
    """The windows in parts without gaps: over a gap a value may change."""
    found: list[list[Window]] = []
    for window in windows:
        if found and found[-1][-1].last == window.first:
            found[-1].append(window)
        else:
            found.append([window])
    return found


async def _totals(reading: Reading) -> dict[tuple[int, Values], Quantity]:
    question = reading.question
    windows = [(microseconds(window.first), microseconds(window.last)) for window in question.windows]
    pieces = await _without_mixed_hours(reading)
    carried = await _carried(reading)
    edges = await _of_edges(reading, pieces)
    integrals: dict[Values, Integrals] = {}

    def add_series(text: str, runs: Runs) -> None:
        group = decode_group(text)
        if question.passes(group):
            inside: dict[int, list[Run]] = {}
            for number, run in sorted(runs.items()):
                inside.setdefault(pieces[number].window, []).append(run)
            integrals.setdefault(question.values(group), Integrals(windows)).add(inside, carried.pop(text, None))

    async for text, runs in _of_hours(reading, pieces):
        add_series(text, {**runs, **edges.pop(text, {})})
    for text in list(edges.keys() | carried.keys()):
        add_series(text, edges.get(text, {}))
    totals: dict[tuple[int, Values], Quantity] = {}
    for values, each in integrals.items():
        totals.update(((window, values), total) for window, total in each.totals())
        reading.check_size(len(totals))
    return totals


async def _without_mixed_hours(reading: Reading) -> list[Piece]:
    """The pieces in order. An hour in which two versions of the meter mix is read from raw events.

    Their runs cannot tell which value held between two samples. Elsewhere a run of one follows on that of the other.
    """
    if len(reading.versions) == 1 or not reading.hours:
        return reading.pieces
    spans = [piece.span for piece in reading.hours]
    mixed = await find_mixed_hours(reading.session, reading.tenant_id, reading.meter_ids, spans)
    found: list[Piece] = []
    for piece in reading.pieces:
        opening, closing = piece.span
        if not piece.raw:
            for hour in mixed[bisect_left(mixed, opening) : bisect_left(mixed, closing)]:
                if opening < hour:
                    found.append(Piece(piece.window, (opening, hour), raw=False))
                found.append(Piece(piece.window, (hour, hour + _HOUR), raw=True))
                opening = hour + _HOUR
        if opening < closing:
            found.append(Piece(piece.window, (opening, closing), raw=piece.raw))
    return found


async def _carried(reading: Reading) -> dict[str, Sample]:
    """The sample that holds when the first window opens, by group: from rollups, then from the hour that it cuts."""
    first = reading.question.windows[0].first
    hour = hour_down(first)
    carried: dict[str, Sample] = {}
    for row in await find_carried(reading.session, reading.tenant_id, reading.meter_ids, hour):
        sample = _sample(row)
        known = carried.get(row.groups)
        if known is None or known.at < sample.at:
            carried[row.groups] = sample
    if hour < first:
        async for _, group, state in reading.raw([(hour, first)], ordered=True):
            assert isinstance(state, SeriesState)
            carried[group.text] = state.samples[0]
    return carried


async def _of_hours(reading: Reading, pieces: Sequence[Piece]) -> AsyncIterator[tuple[str, Runs]]:
    """The runs of one group after the other."""
    hours = [(number, piece.span) for number, piece in enumerate(pieces) if not piece.raw]
    spans = [span for _, span in hours]
    text, runs = "", Runs()
    async for row in stream_runs(reading.session, reading.tenant_id, reading.meter_ids, spans):
        if runs and row.groups != text:
            yield text, runs
            runs = {}
        text = row.groups
        runs[hours[row.bucket - 1][0]] = Run(microseconds(row.first_time), _sample(row), row.integral)
    if runs:
        yield text, runs


async def _of_edges(reading: Reading, pieces: Sequence[Piece]) -> dict[str, Runs]:
    """The runs of all groups, from raw events."""
    runs: dict[str, Runs] = {}
    edges = [(number, piece.span) for number, piece in enumerate(pieces) if piece.raw]
    starts = [span[0] for _, span in edges]
    async for time, group, state in reading.raw([span for _, span in edges], ordered=True):
        assert isinstance(state, SeriesState)
        number = edges[bisect_right(starts, time) - 1][0]
        new = Run(state.samples[0].at.time, state.samples[0])
        known = runs.setdefault(group.text, {}).setdefault(number, new)
        if known is not new:
            known.extend(new)
    return runs


def _sample(row: Row[Any]) -> Sample:
    at = At(
        microseconds(row.latest_time), microseconds(row.latest_received_at), row.latest_partition, row.latest_offset
    )
    return Sample(at, row.latest)
