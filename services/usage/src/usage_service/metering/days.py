"""Partitions of days, made by the owner's function before a batch needs them.

The worker's own role cannot create tables. The migrator's can become the owner, and is used for this and nothing else,
on a connection of its own, opened only when a day is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import date
from typing import Final, Protocol

import asyncpg

from tenantry.database import RoleNames

_ROLE = f'SET ROLE "{RoleNames("usage").owner}"'
_ENSURE: Final = "SELECT system.ensure_usage_days($1::date[], $2)"


class Days(Protocol):
    """Makes sure that events of these days can be stored. May be repeated; returns when the partitions exist."""

    async def ensure(self, days: Iterable[date]) -> AbstractSet[date]:
        """The days among them that take no events any more: copies of those may be in the archive alone."""

    def forget(self) -> None:
        """Partitions that were there may have been dropped."""


class OwnedDays:
    """Days made over the migrator's URL; remembers which exist, and which are gone for good."""

    def __init__(self, migrator_url: str, *, window_days: int = 1) -> None:
        """`window_days`: days on either side of an event's own that it is compared with."""
        self._url = migrator_url
        self._window = window_days
        self._known: set[date] = set()
        self._gone: set[date] = set()
        self._lock = asyncio.Lock()

    async def ensure(self, days: Iterable[date]) -> AbstractSet[date]:
        wanted = set(days)
        missing = wanted - self._known - self._gone
        if missing:
            async with self._lock:
                connection = await asyncpg.connect(self._url)
                try:
                    await connection.execute(_ROLE)
                    gone = set(await connection.fetchval(_ENSURE, sorted(missing), self._window))
                finally:
                    await connection.close()
            self._gone |= gone
            self._known |= missing - gone
        return wanted & self._gone if self._gone else frozenset()

    def forget(self) -> None:
        self._known.clear()
