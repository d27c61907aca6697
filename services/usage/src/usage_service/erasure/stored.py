"""A day of a tenant in PostgreSQL: its raw events and what was counted of them change in one transaction.

Whoever reads raw events and rollups must find the same groups and the same different values in both. So while a day
changes there is no batch of any meter worker, nor a step of a backfill or of a correction in the archive, that has read
events and is yet to write rollups: their locks are taken before anything is changed, and only for a day that has a
value. What is counted after it is committed is new data.

A rollup gets its new label where it is. Where one of the pseudonym stands already, as when the person came back while
the erasure was under way, nothing tells whether the two counted the same events: both are made anew from raw events.

The identity and the digest of an event stay. A copy that comes late is a copy, and one with the value still in it is no
conflict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from usage_service.domain.erasing import Erasing, dimension_paths, unique_path
from usage_service.domain.instants import microseconds
from usage_service.domain.meters import CompiledMeter, Meter
from usage_service.driver import driver_of
from usage_service.metering.counting import RollupKey
from usage_service.metering.recounting import Archived, recount
from usage_service.metering.rollup_rows import key_columns, lock_rollups, set_rollups
from usage_service.metering.rollups import queue_changes
from usage_service.metering.spreading import WHOLE

EVENTS: Final = "usage_event"
ROLLUPS: Final = "usage_rollup"
UNIQUE_VALUES: Final = "usage_unique_value"

_CHUNK: Final = 1_000
# Backfills, and corrections of archived events, read events before they lock rollups, and hold such a row meanwhile.
NO_BACKFILL: Final = "LOCK TABLE system.meter_backfill IN EXCLUSIVE MODE"
PATIENCE: Final = "SET LOCAL lock_timeout = '5s'"
_LOCK: Final = (NO_BACKFILL, *WHOLE)
# Whoever ends the hours of a day holds its row. One that PostgreSQL has is not waited for: its archivist may take long.
_KEEP_HOURS = text("SELECT FROM system.usage_day WHERE day = :day AND dropped_at IS NOT NULL FOR SHARE")

# A value may hide behind an escape; only a reader of JSON can tell.
_CANDIDATES: Final = r"""
SELECT identity, source, event_id, data FROM pool.usage_event
 WHERE tenant_id = $1 AND day = $2
   AND ($3::text[] IS NULL OR position('\' IN data) > 0
        OR EXISTS (SELECT FROM unnest($3::text[]) AS needle WHERE position(needle IN data) > 0)
        OR source = ANY ($4::text[]) OR event_id = ANY ($4::text[]))
"""
_CHANGE: Final = """
UPDATE pool.usage_event AS event SET data = changed.data, source = changed.source, event_id = changed.event_id
  FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[]) AS changed (identity, source, event_id, data)
 WHERE event.tenant_id = $1 AND event.day = $2 AND event.identity = changed.identity
"""
_OF_THE_DAY: Final = """
tenant_id = :tenant AND window_start >= CAST(:day AS date)::timestamp AT TIME ZONE 'UTC'
   AND window_start < (CAST(:day AS date) + 1)::timestamp AT TIME ZONE 'UTC'
"""
_GROUPS = text(f"SELECT DISTINCT meter_id, group_hash, groups FROM pool.usage_rollup WHERE {_OF_THE_DAY}")  # noqa: S608
# What `usage_rollup` is to say of groups with a value, by the hashes of the groups.
_CHANGED: Final = """
unnest(CAST(:meters AS uuid[]), CAST(:olds AS uuid[]), CAST(:news AS uuid[]), CAST(:groups AS text[]))
    AS changed (meter_id, old, new, groups)
"""
_RELABEL = text(
    f"""
    UPDATE pool.usage_rollup AS rollup
       SET group_hash = changed.new, groups = changed.groups, version = rollup.version + 1
      FROM {_CHANGED}
     WHERE {_OF_THE_DAY} AND rollup.meter_id = changed.meter_id AND rollup.group_hash = changed.old
       AND NOT EXISTS (SELECT FROM pool.usage_rollup AS other
                        WHERE (other.tenant_id, other.meter_id, other.window_start, other.group_hash)
                            = (rollup.tenant_id, rollup.meter_id, rollup.window_start, changed.new))
    RETURNING rollup.meter_id, rollup.window_start, rollup.whole_day, changed.old, changed.new
    """  # noqa: S608 (texts of our own)
)
_RELABEL_VALUES = text(
    """
    UPDATE pool.usage_unique_value AS seen SET group_hash = changed.new
      FROM unnest(CAST(:meters AS uuid[]), CAST(:windows AS timestamptz[]), CAST(:olds AS uuid[]),
                  CAST(:news AS uuid[])) AS changed (meter_id, window_start, old, new)
     WHERE seen.tenant_id = :tenant AND (seen.meter_id, seen.window_start, seen.group_hash)
         = (changed.meter_id, changed.window_start, changed.old)
    """
)
_VALUED: Final = """
(meter_id, value_hash) IN (SELECT * FROM unnest(CAST(:meters AS uuid[]), CAST(:olds AS uuid[])))
"""
_HAS_VALUES = text(f"SELECT EXISTS (SELECT FROM pool.usage_unique_value WHERE {_OF_THE_DAY} AND {_VALUED})")  # noqa: S608
_REPLACE_VALUES = text(
    f"""
    UPDATE pool.usage_unique_value AS seen SET value_hash = changed.new
      FROM unnest(CAST(:meters AS uuid[]), CAST(:olds AS uuid[]), CAST(:news AS uuid[])) AS changed (meter_id, old, new)
     WHERE {_OF_THE_DAY} AND seen.meter_id = changed.meter_id AND seen.value_hash = changed.old
       AND NOT EXISTS (SELECT FROM pool.usage_unique_value AS other
                        WHERE (other.tenant_id, other.meter_id, other.window_start, other.group_hash, other.value_hash)
                            = (seen.tenant_id, seen.meter_id, seen.window_start, seen.group_hash, changed.new))
    """  # noqa: S608 (texts of our own)
)
# The rollups of groups with a value, and those that they would have been under the new label.
_NAMED = text(
    f"""
    SELECT rollup.meter_id, window_start, label.group_hash, label.groups
      FROM pool.usage_rollup AS rollup JOIN {_CHANGED} ON (rollup.meter_id, group_hash) = (changed.meter_id, old)
     CROSS JOIN LATERAL (VALUES (old, rollup.groups), (new, changed.groups)) AS label (group_hash, groups)
     WHERE {_OF_THE_DAY}
    """  # noqa: S608 (texts of our own)
)
_COUNTING = text(
    f"""
    SELECT meter_id, window_start, group_hash, groups
      FROM pool.usage_unique_value JOIN pool.usage_rollup USING (tenant_id, meter_id, window_start, group_hash)
     WHERE {_OF_THE_DAY} AND {_VALUED}
    """  # noqa: S608 (texts of our own)
)
_DELETE_EMPTY: Final = """
DELETE FROM pool.usage_rollup AS rollup
 USING unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::uuid[])
       AS key (tenant_id, meter_id, window_start, group_hash)
 WHERE (rollup.tenant_id, rollup.meter_id, rollup.window_start, rollup.group_hash)
     = (key.tenant_id, key.meter_id, key.window_start, key.group_hash) AND rollup.count = 0
"""


@dataclass(frozen=True, slots=True)
class _Hashes:
    """What is replaced by what, as columns, by version of a meter."""

    meters: list[UUID]
    olds: list[UUID]
    news: list[UUID]

    @property
    def columns(self) -> dict[str, list[UUID]]:
        return {"meters": self.meters, "olds": self.olds, "news": self.news}


class StoredDay:
    """A day of a tenant, in the caller's transaction, which has changed nothing yet."""

    def __init__(
        self,
        connection: AsyncConnection,
        erasing: Erasing,
        tenant_id: UUID,
        day: date,
        meters: Sequence[Meter],
        archived: Archived,
    ) -> None:
        """`meters` are all versions of all meters."""
        self._connection = connection
        self._erasing = erasing
        self._tenant_id = tenant_id
        self._key = {"tenant": tenant_id, "day": day}
        self._meters = meters
        self._archived = archived

    async def erase(self) -> Mapping[str, int]:
        """Erases what there is, and returns how many rows of which table were changed. The caller commits.

        Raises PostgreSQL's error where the lock does not come in time: nothing is changed then.
        """
        if not (await self._has_events() or await self._has_rollups()):
            return {}
        await self._lock()
        found: Counter[str] = Counter()
        async for changed in self._changed_events():
            await self._change_events(changed)
            found[EVENTS] += len(changed)
        values = self._value_hashes()
        if values.meters:
            done = await self._connection.execute(_REPLACE_VALUES, {**self._key, **values.columns})
            found[UNIQUE_VALUES] += done.rowcount
        found[ROLLUPS] += await self._relabel() + await self._recount()
        return found

    async def count_again(self) -> Mapping[str, int]:
        """Makes the rollups that have a value anew, and returns how many. The caller commits.

        To be asked once neither PostgreSQL nor the archive has an event with the value, but for those that came since:
        these are new, and their rollups keep it. Raises as `erase` does.
        """
        if not await self._has_rollups():
            return {}
        await self._lock()
        return {ROLLUPS: await self._recount()}

    async def _lock(self) -> None:
        await self._connection.exec_driver_sql(PATIENCE)
        await self._connection.execute(_KEEP_HOURS, self._key)
        for statement in _LOCK:
            await self._connection.exec_driver_sql(statement)

    # Whether something is to be changed is found out without any lock: the workers go on.

    async def _has_events(self) -> bool:
        async for _ in self._changed_events():
            return True
        return False

    async def _has_rollups(self) -> bool:
        hashes, _ = await self._group_hashes()
        if hashes.meters:
            return True
        values = self._value_hashes()
        return bool(values.meters and await self._connection.scalar(_HAS_VALUES, {**self._key, **values.columns}))

    async def _changed_events(self) -> AsyncIterator[list[tuple[UUID, str, str, str]]]:
        """Identity, source, id and data of the events that change, as they will be, a thousand candidates at a time."""
        erasing = self._erasing
        driver = await driver_of(self._connection)
        needles = erasing.needles
        cursor = await driver.cursor(
            _CANDIDATES,
            self._tenant_id,
            self._key["day"],
            None if needles is None else list(needles),
            list(erasing.pseudonyms) if erasing.attributes else [],
        )
        while rows := await cursor.fetch(_CHUNK):
            changed = []
            for identity, source, event_id, data in rows:
                erased = (erasing.attribute(source), erasing.attribute(event_id), erasing.data(data).text)
                if erased != (source, event_id, data):
                    changed.append((identity, *erased))
            if changed:
                yield changed

    async def _change_events(self, changed: Sequence[tuple[UUID, str, str, str]]) -> None:
        driver = await driver_of(self._connection)
        columns = [list(column) for column in zip(*changed, strict=True)]
        await driver.execute(_CHANGE, self._tenant_id, self._key["day"], *columns)

    async def _relabel(self) -> int:
        """How many rollups got a label that was free; what has read them gets a tombstone under the old key."""
        hashes, groups = await self._group_hashes()
        if not hashes.meters:
            return 0
        named = {**self._key, **hashes.columns, "groups": groups}
        done = (await self._connection.execute(_RELABEL, named)).all()
        windows = {
            "meters": [row.meter_id for row in done],
            "windows": [row.window_start for row in done],
            "olds": [row.old for row in done],
            "news": [row.new for row in done],
        }
        await self._connection.execute(_RELABEL_VALUES, {"tenant": self._tenant_id, **windows})
        # Only hours are published.
        hours = [row for row in done if not row.whole_day]
        keys = [self._rollup(row.meter_id, row.window_start, group) for row in hours for group in (row.old, row.new)]
        await queue_changes(await driver_of(self._connection), keys)
        return len(done)

    async def _recount(self) -> int:
        """How many rollups were made anew from events: those that still had a value, and those of its pseudonym."""
        hashes, groups = await self._group_hashes()
        values = self._value_hashes()
        named = (await self._connection.execute(_NAMED, {**self._key, **hashes.columns, "groups": groups})).all()
        counting = (await self._connection.execute(_COUNTING, {**self._key, **values.columns})).all()
        texts = {
            self._rollup(row.meter_id, row.window_start, row.group_hash): row.groups for row in (*named, *counting)
        }
        if not texts:
            return 0
        driver = await driver_of(self._connection)
        meters = {each.id.bytes: CompiledMeter.of(each) for each in self._meters}
        await lock_rollups(driver, sorted(texts), {key[3]: text_ for key, text_ in texts.items()})
        states = await recount(driver, {key: meters[key[1]] for key in sorted(texts)}, self._archived)
        await set_rollups(driver, states)
        await driver.execute(_DELETE_EMPTY, *key_columns(texts))
        await queue_changes(driver, texts)
        return len(texts)

    def _rollup(self, meter_id: UUID, window_start: datetime, group_hash: UUID) -> RollupKey:
        return self._tenant_id.bytes, meter_id.bytes, microseconds(window_start), group_hash.bytes

    async def _group_hashes(self) -> tuple[_Hashes, list[str]]:
        paths = {meter.id: dimension_paths(meter) for meter in self._meters}
        hashes, groups = _Hashes([], [], []), []
        for row in await self._connection.execute(_GROUPS, self._key):
            if self._erasing.may_be_in(row.groups):
                new = self._erasing.group(row.groups, paths.get(row.meter_id, {}))
                if new is not None:
                    hashes.meters.append(row.meter_id)
                    hashes.olds.append(row.group_hash)
                    hashes.news.append(UUID(bytes=new.hash))
                    groups.append(new.text)
        return hashes, groups

    def _value_hashes(self) -> _Hashes:
        hashes = _Hashes([], [], [])
        for meter in self._meters:
            for old, new in self._erasing.values_at(unique_path(meter)).items():
                hashes.meters.append(meter.id)
                hashes.olds.append(UUID(bytes=old))
                hashes.news.append(UUID(bytes=new))
        return hashes
