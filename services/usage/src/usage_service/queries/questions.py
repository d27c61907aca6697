"""What is asked of a meter, and where each part of the answer comes from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from usage_service.archive.reading import ArchivedEvent, ArchiveReader, joined
from usage_service.domain.errors import InvalidDefinition, InvalidPath, InvalidQuantity, InvalidWindow
from usage_service.domain.filters import Predicate
from usage_service.domain.instants import instant, microseconds
from usage_service.domain.jsonpath import reader
from usage_service.domain.meters import NO_GROUP, Aggregation, CompiledMeter, Group, Meter
from usage_service.domain.quantities import value_text
from usage_service.domain.rollups import At, RollupState, State, UniqueState, empty_state
from usage_service.domain.windows import Granularity, Window, pieces
from usage_service.metering.rows import decode_data
from usage_service.queries.alike import ALIKE, MAX_PLACES, Places
from usage_service.queries.kept import FiguresEnded
from usage_service.queries.overflow import NEVER_FULL, FullHours, full_hours, placed
from usage_service.queries.raw_events import find_cancelled, stream_alike, stream_raw
from usage_service.queries.repository import Range

Values = tuple[str, ...]
"""The values of the dimensions that an answer is grouped by."""

MAX_FIGURES: Final = 200_000
"""Of one answer, which may be about several meters."""
MAX_READ: Final = 2_000_000
"""Raw events of one meter that an answer is made of, those that are alike as one: half a minute of work."""

_Source = tuple[AsyncIterator[Any], Callable[[Any], tuple[Group, State] | None]]
"""Rows, and what counts them."""

decode_group = msgspec.json.Decoder(dict[str, str]).decode


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a meter. `windows` are in order and without gaps.

    `tests` are filters by dimension, or by a path into the event's data, which only raw events can answer; so is
    `received_before`, which leaves out what came later.
    """

    windows: Sequence[Window]
    granularity: Granularity
    group_by: tuple[str, ...] = ()
    tests: Sequence[tuple[str, Predicate]] = ()
    fill_zero: bool = False
    received_before: datetime | None = None

    def check(self, versions: Sequence[Meter]) -> None:
        """Raises InvalidWindow for what the meter cannot answer."""
        check_places(versions, self.tests, group_by=self.group_by)
        # The sample that holds when a range opens may be older than the raw events.
        if versions[-1].definition.aggregation is Aggregation.TIME_WEIGHTED:
            if any(is_path(name) for name, _ in self.tests):
                raise InvalidWindow("filter", "a time-weighted meter is filtered by its dimensions")
            if self.received_before is not None:
                raise InvalidWindow("received_before", "does not go with a time-weighted meter")

    def is_complete(self, versions: Sequence[Meter]) -> bool:
        """Whether no backfill of the meter has to count any of the events that the answer is made of."""
        first = versions[0]
        if first.incomplete_until is None or first.backfill_from is None or not self.windows:
            return True
        opening, closing = microseconds(self.windows[0].first), microseconds(self.windows[-1].last)
        # A value that is carried into the range may be as old as there are events.
        carries = first.definition.aggregation is Aggregation.TIME_WEIGHTED
        return closing <= first.backfill_from or (first.incomplete_until <= opening and not carries)

    @property
    def reads_data(self) -> bool:
        """Whether the whole answer comes from raw events."""
        return (
            self.granularity is Granularity.MINUTE
            or self.received_before is not None
            or any(is_path(name) for name, _ in self.tests)
        )

    def passes(self, group: Mapping[str, str]) -> bool:
        """Whether the filters by dimension let a group through."""
        return all(test(group.get(name, "")) for name, test in self.tests if not is_path(name))

    def values(self, group: Mapping[str, str]) -> Values:
        return tuple([group.get(name, "") for name in self.group_by])


def check_places(
    versions: Sequence[Meter], tests: Sequence[tuple[str, Predicate]], *, group_by: Sequence[str] = ()
) -> None:
    """Raises InvalidWindow where the meter has no such dimension."""
    known = {name for meter in versions for name in meter.definition.group_by}
    filters = [("filter", name) for name, _ in tests if not is_path(name)]
    for loc, name in [("group_by", name) for name in group_by] + filters:
        if name not in known:
            raise InvalidWindow(loc, f"the meter has no dimension {name[:64]!r}; it has {sorted(known)}")


def is_path(place: str) -> bool:
    """Whether a filter names a place in the event's data instead of a dimension."""
    return place.startswith("$")


class Piece(NamedTuple):
    """A part of a window: whole UTC hours, or raw events."""

    window: int
    span: Range
    raw: bool


@dataclass(slots=True)
class Reading:
    """One question being answered for one tenant. `versions` are all versions of one meter, oldest first.

    Without the archive the raw events of its days are missing; whole hours need none. `most` is how many figures the
    answer may have.
    """

    session: AsyncSession
    tenant_id: UUID
    versions: Sequence[Meter]
    question: Question
    archive: ArchiveReader | None = None
    most: int = MAX_FIGURES
    pieces: list[Piece] = field(init=False)

    def __post_init__(self) -> None:
        self.pieces = []
        for number, window in enumerate(self.question.windows):
            span = (window.first, window.last)
            parts = pieces(*span)
            if self.question.reads_data:
                self.pieces.append(Piece(number, span, raw=True))
                continue
            found = [Piece(number, edge, raw=True) for edge in parts.raw]
            if parts.hours is not None:
                found.append(Piece(number, parts.hours, raw=False))
            self.pieces += sorted(found, key=lambda piece: piece.span)

    def check_size(self, figures: int) -> None:
        """Raises InvalidWindow for more figures than the answer may have. To be asked while they are collected."""
        if figures > self.most:
            raise InvalidWindow("window", f"more than {MAX_FIGURES:,} figures; ask for fewer windows, groups or meters")

    @property
    def aggregation(self) -> Aggregation:
        return self.versions[-1].definition.aggregation

    @property
    def meter_ids(self) -> list[UUID]:
        return [meter.id for meter in self.versions]

    @property
    def hours(self) -> list[Piece]:
        return [piece for piece in self.pieces if not piece.raw]

    @property
    def edges(self) -> list[Piece]:
        return [piece for piece in self.pieces if piece.raw]

    async def raw(
        self, spans: Sequence[Range], *, ordered: bool = False
    ) -> AsyncIterator[tuple[datetime, Group, State]]:
        """The time, group and state of each raw event in the spans that the meter counted and the filters let through.

        `ordered` gives them in the order in which values supersede each other.
        """
        meters = [CompiledMeter.of(meter) for meter in self.versions]
        wanted = {*self.question.group_by, *(name for name, _ in self.question.tests if not is_path(name))}
        by_group = bool(wanted) or self.aggregation is Aggregation.TIME_WEIGHTED
        full = await full_hours(self.session, self.tenant_id, meters, spans) if by_group else NEVER_FULL
        behind = Behind(meters, self.question.tests, full, by_group=by_group)
        event_type = self.versions[-1].definition.event_type
        until = self.question.received_before
        archived: AsyncIterator[Any] = _none()
        if self.archive is not None:
            lost = await self.archive.find_lost_day(self.tenant_id, self.meter_ids, spans)
            if lost is not None:
                raise FiguresEnded(f"The events of {lost} have ended; ask for whole hours, or for whole days (UTC).")
            stream = self.archive.stream(self.tenant_id, event_type, spans, received_before=until, ordered=ordered)
            archived = self._counted(stream, spans)
        alike = None if ordered else self._alike(spans, full, wanted)
        if alike is None:
            stored = stream_raw(self.session, self.tenant_id, event_type, spans, received_before=until, ordered=ordered)
            sources: list[_Source] = [(joined(stored, archived, ordered=ordered), behind.count)]
        else:
            sources = [alike, (archived, behind.count)]
        read = 0
        for rows, count in sources:
            async for row in rows:
                read += 1
                if read > MAX_READ:
                    raise InvalidWindow("from", f"more than {MAX_READ:,} raw events; ask for whole hours, or fewer")
                found = count(row)
                if found is not None:
                    yield row.event_time, *found

    def _alike(self, spans: Sequence[Range], full: FullHours, wanted: Collection[str]) -> _Source | None:
        """PostgreSQL's events, those that are alike as one, and what counts them; None where each has to be seen."""
        if self.aggregation not in ALIKE:
            return None
        places = Places()
        known = {name for meter in self.versions for name in meter.definition.group_by}
        # Whether a group was one too many is told by all of its dimensions.
        dimensions = known if full else known & set(wanted)
        meters = [CompiledMeter.of(places.meter(meter, dimensions)) for meter in self.versions]
        tests = [places.test(test, is_path=is_path(test[0])) for test in self.question.tests]
        if len(places.names) > MAX_PLACES:
            return None
        first = self.versions[0]
        rows = stream_alike(
            self.session,
            self.tenant_id,
            first.definition.event_type,
            spans,
            received_before=self.question.received_before,
            places=places.segments,
            since=None if first.backfill_from is None else instant(first.backfill_from),
            by_hour=bool(full),
        )
        return rows, Behind(meters, tests, full, by_group=bool(wanted)).count_alike

    async def _counted(
        self, archived: AsyncIterator[ArchivedEvent], spans: Sequence[Range]
    ) -> AsyncIterator[ArchivedEvent]:
        """Without those that are cancelled. PostgreSQL leaves them out of its own events itself."""
        cancelled: Collection[tuple[UUID, date]] | None = None
        async for event in archived:
            if cancelled is None:
                span = (spans[0][0], spans[-1][1])
                until = self.question.received_before
                cancelled = await find_cancelled(self.session, self.tenant_id, span, received_before=until)
            if (event.identity, event.event_time.astimezone(UTC).date()) not in cancelled:
                yield event


class Behind:
    """Tells which raw events are behind the figures of a meter, as its versions counted them when they came."""

    def __init__(
        self,
        meters: Sequence[CompiledMeter],
        tests: Sequence[tuple[str, Predicate]],
        full: FullHours,
        *,
        by_group: bool = True,
    ) -> None:
        """Raises InvalidDefinition for a filter by what is no path. Without `by_group` nobody looks at the groups."""
        self._by_group = by_group
        self._meters = meters
        self._full = full
        self._dimensions = [(name, test) for name, test in tests if not is_path(name)]
        self._paths = [(_text_reader(name), test) for name, test in tests if is_path(name)]

    def count(self, row: Row[Any]) -> tuple[Group, State] | None:
        """The group and state of an event; None where it did not count, or a filter does not let it through."""
        received = microseconds(row.received_at)
        return self._count(row, At(microseconds(row.event_time), received, row.kafka_partition, row.kafka_offset))

    def count_alike(self, row: Row[Any]) -> tuple[Group, State] | None:
        """The same of so many `events` that are alike, of aggregations that do not look at their order."""
        found = self._count(row, At(microseconds(row.event_time), 0, 0, 0))
        if found is not None:
            state = found[1]
            assert isinstance(state, RollupState | UniqueState)
            state.repeat(row.events)
        return found

    def _count(self, row: Row[Any], at: At) -> tuple[Group, State] | None:
        time = at.time
        meter = next((each for each in self._meters if each.meter.counts(row.catalogue_version, time)), None)
        data = decode_data(row.data)
        if meter is None or not meter.matches(data) or not all(test(read(data)) for read, test in self._paths):
            return None
        group = placed(meter.group(data), meter, row.event_time, self._full) if self._by_group else NO_GROUP
        if self._dimensions:
            values = decode_group(group.text)
            if not all(test(values.get(name, "")) for name, test in self._dimensions):
                return None
        state = empty_state(meter.meter.definition.aggregation)
        try:
            state.observe(meter, data, at)
        except InvalidQuantity:
            return None
        return group, state


async def _none() -> AsyncIterator[Any]:
    return
    yield


def _text_reader(path: str) -> Callable[[Mapping[str, object]], object]:
    """What a query compares: its operands are texts, so a boolean is one too."""
    try:
        read = reader(path)
    except InvalidPath as error:
        raise InvalidDefinition("filter", f"{path[:80]!r}: {error}") from None

    def text(data: Mapping[str, object]) -> object:
        value = read(data)
        return value_text(value) if isinstance(value, bool) else value

    return text
