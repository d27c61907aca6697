"""Which identities are surely new: filters of what is stored, by day, for all consumer members of a process.

A copy of an event can lie on a neighbouring day, and looking there for every event costs more than storing it. Only the
owner of a partition writes identities that came through it, so the process that owns it can remember them: what the
filters of the days around an event do not hold is new. What they hold may be a copy, and is looked up.

There are no false negatives. A day's filter is loaded with whatever is stored of that day, after the owner epochs were
read. Of a partition that has the same epoch still, everything else that was stored through it went through here:

- the owners before that epoch had ended before it was there to be read, as a claim waits for their last transaction;
- a key is added before its transaction commits; a rollback leaves a key too many, which costs a look-up;
- a filter stays while a batch is under way whose keys were added to it, and which no other load would see;
- under another epoch what came through the partition is loaded again, and added.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from struct import Struct
from typing import Final

import asyncpg
from rbloom import Bloom

from usage_service.domain.instants import day_of
from usage_service.metering.filters import DayFilter

_EPOCHS = "SELECT partition, owner_epoch FROM system.consumer_offset WHERE group_id = $1 AND topic = $2"
# One bytea a row, so that a key is one piece of what COPY sends.
_IDENTITIES = """
SELECT uuid_send(tenant_id) || uuid_send(identity) FROM pool.usage_event
 WHERE day = $1 AND (CAST($2 AS int[]) IS NULL OR kafka_partition = ANY(CAST($2 AS int[])))
"""
_BYTES = """
SELECT day, COALESCE(pg_relation_size(to_regclass('pool.usage_event_' || to_char(day, 'YYYYMMDD'))), 0) AS bytes
  FROM unnest($1::date[]) AS day
"""
_BYTES_OF_EVENT: Final = 150
"""Less than nearly all events take, so that a filter has room for what is there and for as many to come."""
_COPY_HEADER: Final = 19
_ROW = Struct("6x32s")
"""The number of columns, a length, a key: tenant and identity."""
_NEVER_OWNED: Final = -1
_MOST_KEYS: Final = 100_000_000
"""Room of all filters together; 1.4 bytes a key. Days that were not needed for longest are forgotten beyond."""

Epochs = Mapping[int, int]
_Take = Callable[[Iterable[bytes], int], None]


class KnownIdentities:
    """Shared by the members of a process, which belong to one event loop."""

    def __init__(self, *, group: str, topic: str, most_keys: int = _MOST_KEYS) -> None:
        """`group` and `topic` are the names on the cluster."""
        self._group = group
        self._topic = topic
        self._most_keys = most_keys
        self._filters: OrderedDict[int, DayFilter] = OrderedDict()
        self._covered: dict[int, dict[int, int]] = {}
        self._held: dict[object, set[int]] = {}
        self._loading = asyncio.Lock()

    async def hold(
        self, holder: object, connection: asyncpg.Connection, places: Iterable[tuple[int, int]], epochs: Epochs
    ) -> None:
        """Has the filters of all (partition, day) ready for a batch of `holder`, until it calls `release`.

        `epochs` are those under which the partitions are owned. What is missing is loaded through `connection`, which
        must see what is committed (READ COMMITTED).
        """
        wanted: dict[int, set[int]] = {}
        for partition, day in places:
            wanted.setdefault(day, set()).add(partition)
        self._held.setdefault(holder, set()).update(wanted)
        if any(self._uncovered(day, partitions, epochs) for day, partitions in wanted.items()):
            async with self._loading:
                missing = {day: self._uncovered(day, partitions, epochs) for day, partitions in wanted.items()}
                missing = {day: partitions for day, partitions in missing.items() if partitions}
                if missing:  # where another member has not loaded it meanwhile
                    await self._load(connection, missing)
        for day in wanted:
            self._filters.move_to_end(day)

    def release(self, holder: object) -> None:
        """The batch of `holder` is committed or rolled back."""
        self._held.pop(holder, None)
        held = set().union(*self._held.values())
        room = sum(each.capacity for each in self._filters.values())
        for day in [day for day in self._filters if day not in held]:
            if room <= self._most_keys:
                break
            room -= self._filters.pop(day).capacity
            del self._covered[day]

    def filters(self, days: Iterable[int]) -> list[Bloom]:
        """All filters of days that are held."""
        return [each for day in days for each in self._filters[day].filters]

    def add(self, day: int, keys: Collection[bytes]) -> None:
        """Before the transaction that stores them is committed; the day is held."""
        self._filters[day].extend(keys)

    def _uncovered(self, day: int, partitions: Collection[int], epochs: Epochs) -> list[int]:
        if day not in self._filters:
            return sorted(partitions)
        covered = self._covered[day]
        return [
            each for each in sorted(partitions) if covered.get(each, _NEVER_OWNED) != epochs.get(each, _NEVER_OWNED)
        ]

    async def _load(self, connection: asyncpg.Connection, missing: Mapping[int, Sequence[int]]) -> None:
        # Read first: what the owners before these epochs have stored is then there for the statements that follow.
        owned = await connection.fetch(_EPOCHS, self._group, self._topic)
        epochs: dict[int, int] = {row["partition"]: row["owner_epoch"] for row in owned}
        new = [day_of(day) for day in missing if day not in self._filters]
        sizes = {row["day"]: row["bytes"] for row in await connection.fetch(_BYTES, new)}
        for day, partitions in sorted(missing.items()):
            known = self._filters.get(day)
            if known is not None:
                await _read_into(connection, day, partitions, partial(_add_unseen, known))
                self._covered[day].update({each: epochs.get(each, _NEVER_OWNED) for each in partitions})
                continue
            stored = sizes[day_of(day)]
            loaded = DayFilter(stored // _BYTES_OF_EVENT)
            if stored:  # most days of a history have nothing yet
                await _read_into(connection, day, None, loaded.extend_counted)
            self._filters[day], self._covered[day] = loaded, dict(epochs)


def _add_unseen(known: DayFilter, keys: Iterable[bytes], _: int) -> None:
    # Most of them are there already: counted again, they would make the filter grow with every rebalance.
    known.extend([key for key in keys if key not in known])


async def _read_into(connection: asyncpg.Connection, day: int, partitions: Sequence[int] | None, take: _Take) -> None:
    """Reads the keys of a day as they come, some hundreds at a time: ten million of them stop nobody else's work."""
    rest = b""
    skip = _COPY_HEADER

    async def read(data: bytes) -> None:
        nonlocal rest, skip
        received = rest + data
        whole = (len(received) - skip) // _ROW.size
        if whole <= 0:
            rest = received
            return
        end = skip + whole * _ROW.size
        take(chain.from_iterable(_ROW.iter_unpack(memoryview(received)[skip:end])), whole)
        rest, skip = received[end:], 0

    await connection.copy_from_query(
        _IDENTITIES, day_of(day), None if partitions is None else list(partitions), output=read, format="binary"
    )
