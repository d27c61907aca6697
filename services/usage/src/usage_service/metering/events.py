"""Storing events: each identity once inside its window, whichever copy comes first.

Copies inside one batch are decided in memory. Between two copies the one at the lowest (partition, offset) wins, as if
records were stored one at a time:

- a copy on the same day as the first one is a duplicate, whatever became of the first;
- a copy on another day is a duplicate if the first was stored and lies within the window; if the first was itself a
  duplicate of something older, the copy has to be looked up on its own, in a further round.

The window counts days on either side of the event's own day; the row's key catches the own day again.

Copies that came under another key of their tenant are not in the filters (`metering.spreading`): where there may be
some, every event is looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import asyncpg

from usage_service.domain.instants import day_of
from usage_service.metering.identities import KnownIdentities
from usage_service.metering.rows import EventRow
from usage_service.metering.spreading import NEVER, SpreadTenants
from usage_service.metering.staging import EVENT_COLUMNS, copy_into, event_bytes

# LATERAL with LIMIT keeps it one index descent a key and day: as an anti-join the planner may read whole days instead.
_FIND = """
SELECT copy.ordinal - 1 AS ordinal, stored.digest
  FROM unnest($1::uuid[], $2::uuid[], $3::date[]) WITH ORDINALITY AS copy (tenant_id, identity, day, ordinal)
 CROSS JOIN LATERAL (
       SELECT event.digest FROM pool.usage_event AS event
        WHERE event.tenant_id = copy.tenant_id AND event.identity = copy.identity
          AND event.day BETWEEN copy.day - $4::int AND copy.day + $4::int
        LIMIT 1) AS stored
"""
# Sorted by key: neighbouring rows go to the same index page, and two workers take the same locks in the same order.
_INSERT = f"""
INSERT INTO pool.usage_event ({", ".join(EVENT_COLUMNS)}, catalogue_version)
SELECT {", ".join(EVENT_COLUMNS)}, %d FROM staged_event ORDER BY day, tenant_id, identity
"""  # noqa: S608 (column names of our own)
# In one round trip. Without ON CONFLICT an insert descends the index once and not twice and writes two records to the
# log and not three: it takes two thirds of the time.
_INSERT_NEW = f"SAVEPOINT storing; {_INSERT}; RELEASE SAVEPOINT storing"
_BEFORE_INSERT = "ROLLBACK TO SAVEPOINT storing"
_INSERT_MISSING = f"{_INSERT} ON CONFLICT DO NOTHING"
# So many inserts skip what is there already, after one that came upon it.
_WARY: Final = 20
_MISSING = """
SELECT staged.kafka_partition, staged.kafka_offset, stored.digest
  FROM staged_event AS staged
  JOIN pool.usage_event AS stored
    ON stored.tenant_id = staged.tenant_id AND stored.identity = staged.identity AND stored.day = staged.day
 WHERE (stored.kafka_partition, stored.kafka_offset) <> (staged.kafka_partition, staged.kafka_offset)
"""


@dataclass(slots=True)
class Stored:
    """What became of a batch: rows that are new, and copies that say something else than what is stored."""

    new: list[EventRow] = field(default_factory=list)
    conflicts: list[EventRow] = field(default_factory=list)
    staged: bool = False


class EventStore:
    """Stores batches for one consumer member, one at a time."""

    def __init__(self, spreads: SpreadTenants, identities: KnownIdentities, *, window_days: int) -> None:
        """`identities` are shared by the members of a process."""
        self._spreads = spreads
        self._identities = identities
        self._window = window_days
        self._epochs: dict[int, int] = {}
        self._wary = 0

    def own(self, partition: int, epoch: int) -> bool:
        """To be called for every partition of a batch before `store`; True when the partition is newly owned."""
        is_new = self._epochs.get(partition) != epoch
        self._epochs[partition] = epoch
        return is_new

    async def store(
        self, connection: asyncpg.Connection, rows: Sequence[EventRow], catalogue_version: int, *, clear: bool
    ) -> Stored:
        """Inserts what is new, in the caller's transaction. The days of all rows must have partitions.

        `rows` are in the order of (partition, offset). `clear` says that the stage was used in this transaction before.
        """
        stored = Stored(staged=clear)
        if not clear:
            self._identities.release(self)  # the transaction of the last batch has ended
        places = {(row.partition, row.day) for row in rows}
        await self._identities.hold(
            self, connection, {(partition, near) for partition, day in places for near in self._near(day)}, self._epochs
        )
        remaining: Sequence[EventRow] = rows
        while remaining:
            remaining = await self._round(connection, remaining, catalogue_version, stored)
        return stored

    async def _round(
        self, connection: asyncpg.Connection, rows: Sequence[EventRow], catalogue_version: int, stored: Stored
    ) -> list[EventRow]:
        first: dict[bytes, EventRow] = {}
        copies = [row for row in rows if first.setdefault(row.key, row) is not row]
        standing: dict[bytes, int] = {}
        new = await self._insert(connection, list(first.values()), catalogue_version, stored, standing)
        fresh = {row.key for row in new} if copies else set()
        further: list[EventRow] = []
        for copy in copies:
            winner = first[copy.key]
            near = abs(copy.day - winner.day) <= self._window
            if copy.day == winner.day or (near and copy.key in fresh):
                if copy.digest != standing.get(copy.key, winner.digest):
                    stored.conflicts.append(copy)
            else:
                further.append(copy)
        stored.new += new
        return further

    async def _insert(
        self,
        connection: asyncpg.Connection,
        rows: list[EventRow],
        catalogue_version: int,
        stored: Stored,
        standing: dict[bytes, int],
    ) -> list[EventRow]:
        """The rows, of as many identities, that are new; `standing` gets what is stored of the others."""
        standing |= await self._find_copies(connection, rows, stored)
        candidates = [row for row in rows if row.key not in standing] if standing else rows
        if not candidates:
            return []
        await copy_into(connection, "staged_event", EVENT_COLUMNS, map(event_bytes, candidates), clear=stored.staged)
        stored.staged = True
        if not await self._insert_new(connection, catalogue_version):
            inserted = int((await connection.execute(_INSERT_MISSING % catalogue_version)).rpartition(" ")[2])
            if inserted != len(candidates):
                candidates = await self._without_conflicts(connection, candidates, stored, standing)
        self._remember(candidates)
        return candidates

    async def _insert_new(self, connection: asyncpg.Connection, catalogue_version: int) -> bool:
        """Inserts the stage, which the key refuses only for what no filter knew; False where nothing was inserted."""
        if self._wary:
            self._wary -= 1
            return False
        try:
            await connection.execute(_INSERT_NEW % catalogue_version)
        except asyncpg.UniqueViolationError:
            await connection.execute(_BEFORE_INSERT)
            self._wary = _WARY
            return False
        return True

    async def _find_copies(
        self, connection: asyncpg.Connection, rows: Sequence[EventRow], stored: Stored
    ) -> dict[bytes, int]:
        """The digests that are stored of those rows that have a copy in the database, by their keys."""
        suspects = self._suspects(rows)
        if not suspects:
            return {}
        found = await connection.fetch(
            _FIND,
            [UUID(bytes=row.tenant) for row in suspects],
            [UUID(bytes=row.identity) for row in suspects],
            [day_of(row.day) for row in suspects],
            self._window,
        )
        copies = {}
        for ordinal, digest in found:
            row = suspects[ordinal]
            copies[row.key] = digest
            if digest != row.digest:
                stored.conflicts.append(row)
        return copies

    def _suspects(self, rows: Iterable[EventRow]) -> list[EventRow]:
        around = {day: self._identities.filters(self._near(day)) for day in {row.day for row in rows}}
        suspects = []
        looked_up = self._spreads.looked_up
        for row in rows:
            if looked_up and row.day <= looked_up.get(row.tenant, NEVER):
                suspects.append(row)
                continue
            key = row.key
            for each in around[row.day]:
                if key in each:
                    suspects.append(row)
                    break
        return suspects

    async def _without_conflicts(
        self, connection: asyncpg.Connection, rows: list[EventRow], stored: Stored, standing: dict[bytes, int]
    ) -> list[EventRow]:
        """The key refused rows that no filter knew: not of this owner's partition. Slow, exact, and not expected."""
        refused: dict[tuple[int, int], Any] = {
            (partition, offset): digest for partition, offset, digest in await connection.fetch(_MISSING)
        }
        kept = []
        for row in rows:
            digest = refused.get((row.partition, row.offset))
            if digest is None:
                kept.append(row)
                continue
            standing[row.key] = digest
            if digest != row.digest:
                stored.conflicts.append(row)
        return kept

    def _remember(self, rows: Iterable[EventRow]) -> None:
        keys: dict[int, list[bytes]] = {}
        for row in rows:
            keys.setdefault(row.day, []).append(row.key)
        for day, new in keys.items():
            self._identities.add(day, new)

    def _near(self, day: int) -> range:
        return range(day - self._window, day + self._window + 1)
