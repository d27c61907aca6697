"""Exact numbers of different values in any windows: the values of whole hours are rows, those of edges are read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from usage_service.domain.errors import InvalidWindow
from usage_service.domain.rollups import UniqueState
from usage_service.queries.questions import Reading, Values, decode_group
from usage_service.queries.repository import UniqueEdges, find_groups, stream_uniques

MAX_VALUES: Final = 500_000
"""Different values of raw events that are held at once, some 100 bytes each."""


async def unique_counts(reading: Reading) -> dict[tuple[int, Values], int]:
    """By window number and group, for those that have any."""
    question = reading.question
    labels: dict[Values, int] = {}
    chosen = await _chosen_groups(reading, labels)
    seen: dict[tuple[int, int], set[bytes]] = {}
    many = 0
    edges = reading.edges
    starts = [piece.span[0] for piece in edges]
    async for time, group, state in reading.raw([piece.span for piece in edges]):
        assert isinstance(state, UniqueState)
        values = question.values(decode_group(group.text)) if question.group_by else ()
        window = edges[bisect_right(starts, time) - 1].window
        known = seen.setdefault((window, labels.setdefault(values, len(labels))), set())
        before = len(known)
        known |= state.values
        many += len(known) - before
        if many > MAX_VALUES:
            raise InvalidWindow("from", f"more than {MAX_VALUES:,} different values in raw events; ask for whole hours")
    hours = [(piece.window, piece.span) for piece in reading.hours]
    named = {label: values for values, label in labels.items()}
    counts: dict[tuple[int, Values], int] = {}
    async for row in stream_uniques(
        reading.session, reading.tenant_id, reading.meter_ids, hours, groups=chosen, edges=_columns(seen)
    ):
        counts[row.number, named[row.label]] = row.uniques
        reading.check_size(len(counts))
    return counts


async def _chosen_groups(reading: Reading, labels: dict[Values, int]) -> list[tuple[UUID, int]]:
    """The groups that the filters let through, each with the number of what it is answered under."""
    question, spans = reading.question, [piece.span for piece in reading.hours]
    chosen = []
    for row in await find_groups(reading.session, reading.tenant_id, reading.meter_ids, spans):
        group = decode_group(row.groups)
        if question.passes(group):
            values = question.values(group)
            chosen.append((row.group_hash, labels.setdefault(values, len(labels))))
    return chosen


def _columns(seen: Mapping[tuple[int, int], set[bytes]]) -> UniqueEdges:
    edges = UniqueEdges([], [], [])
    for (window, label), values in seen.items():
        edges.windows.extend([window] * len(values))
        edges.labels.extend([label] * len(values))
        edges.values.extend(UUID(bytes=value) for value in values)
    return edges
