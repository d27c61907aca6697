"""Counting raw events anew for one version of a meter, block by block, into what the rows of its rollups are to say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from usage_service.backfilling.jobs import Job
from usage_service.backfilling.raw import RawEvent
from usage_service.domain.errors import InvalidQuantity
from usage_service.domain.instants import HOUR, microseconds
from usage_service.domain.meters import MAX_GROUPS, NO_GROUP, CompiledMeter, Group
from usage_service.domain.rollups import At, State, UniqueState
from usage_service.domain.series import ordered_state
from usage_service.metering.counting import RollupKey, WindowKey
from usage_service.metering.rollup_rows import Kept
from usage_service.metering.rows import decode_data


@dataclass(slots=True)
class Recount:
    """What a pass over a scope has found. `own` are the groups that have a rollup of their own, by window.

    `counted` is how many events that were stored before the meter it counts; `unmatched` how many of its type, by
    tenant, had been listed as unmatched.
    """

    meter: CompiledMeter
    job: Job
    max_groups: int = MAX_GROUPS
    own: dict[WindowKey, set[bytes]] = field(default_factory=dict)
    groups: dict[bytes, str] = field(default_factory=dict)
    counted: int = 0
    unmatched: Counter[UUID] = field(default_factory=Counter)
    states: dict[RollupKey, State] = field(default_factory=dict)

    def unknown_windows(self, block: Iterable[RawEvent]) -> set[WindowKey]:
        """The windows of a block whose groups are to be learned before it is counted."""
        if not self.meter.readers:
            return set()
        key = self.meter.key
        found = set()
        for event in block:
            time = microseconds(event[1])
            found.add((event[0].bytes, key, time - time % HOUR))
        return found - self.own.keys()

    def learn(self, own: Mapping[WindowKey, set[bytes]]) -> None:
        """Takes the groups that windows have. One that is full already keeps its `__other__`, be it empty then."""
        overflow = self.meter.overflow
        for window, hashes in own.items():
            if overflow.hash in hashes:
                self.groups[overflow.hash] = overflow.text
                self.states[*window, overflow.hash] = ordered_state(self.meter.meter.definition.aggregation)
            self.own[window] = hashes - {overflow.hash}

    def count(self, block: Iterable[RawEvent]) -> None:
        """Counts events. Those of a time-weighted meter have to come by time."""
        meter, job = self.meter, self.job
        counts, since, unmatched_before = meter.meter.counts, meter.meter.since, job.unmatched_before
        reads = meter.tests or meter.readers or meter.value is not None
        for tenant, event_time, received_at, partition, offset, catalogue_version, text in block:
            time = microseconds(event_time)
            if catalogue_version < unmatched_before and job.first <= time < job.unmatched_until:
                self.unmatched[tenant] += 1
            if not counts(catalogue_version, time):
                continue
            data = decode_data(text) if reads else {}
            if meter.tests and not meter.matches(data):
                continue
            window = (tenant.bytes, meter.key, time - time % HOUR)
            at = At(time, microseconds(received_at), partition, offset)
            try:
                self._observe(window, meter.group(data) if meter.readers else NO_GROUP, data, at)
            except InvalidQuantity:
                continue  # what is no value has no place in any rollup
            if catalogue_version < since and job.first <= time < job.last:
                self.counted += 1

    @property
    def keys(self) -> list[RollupKey]:
        """Of the rollups that count something, or may have to be emptied, in order."""
        return sorted(self.states)

    def rows(self, uniques: Mapping[RollupKey, int]) -> dict[RollupKey, Kept]:
        """What the rows are to say; the numbers of different values are the database's to know."""
        return {key: self._row(key, state, uniques) for key, state in self.states.items()}

    def _observe(self, window: WindowKey, group: Group, data: Mapping[str, object], at: At) -> None:
        placed = self._placed(window, group)
        key = (*window, placed.hash)
        state = self.states.get(key)
        if state is not None:
            state.observe(self.meter, data, at)
            return
        state = ordered_state(self.meter.meter.definition.aggregation)
        state.observe(self.meter, data, at)
        self.states[key] = state
        self.groups[placed.hash] = placed.text
        if self.meter.readers and placed is not self.meter.overflow:
            self.own[window].add(placed.hash)

    def _placed(self, window: WindowKey, group: Group) -> Group:
        if not self.meter.readers or group.hash in self.own[window] or len(self.own[window]) < self.max_groups:
            return group
        return self.meter.overflow

    def _row(self, key: RollupKey, state: State, uniques: Mapping[RollupKey, int]) -> Kept:
        row = Kept.of(state)
        if isinstance(state, UniqueState):
            row.uniques = uniques.get(key, 0)
        return row
