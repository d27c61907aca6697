"""Partitions of days, made by the owner's function before a batch needs them.

The worker's own role cannot create tables. The migrator's can become the owner, and is used for this and nothing else,
on a connection of its own, opened only when a day is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import date
from typing import Final, Protocol

import asyncpg

from tenantry.database import RoleNames

_ROLE = f'SET ROLE "{RoleNames("usage").owner}"'
_ENSURE: Final = "SELECT system.ensure_usage_days($1::date[])"


class Days(Protocol):
    """Makes sure that events of these days can be stored. May be repeated; returns when the partitions exist."""

    async def ensure(self, days: Iterable[date]) -> None: ...

    def forget(self) -> None:
        """Partitions that were there may have been dropped."""


class OwnedDays:
    """Days made over the migrator's URL; remembers which exist."""

    def __init__(self, migrator_url: str) -> None:
        self._url = migrator_url
        self._known: set[date] = set()
        self._lock = asyncio.Lock()

    async def ensure(self, days: Iterable[date]) -> None:
        missing = set(days) - self._known
        if not missing:
            return
        async with self._lock:
            connection = await asyncpg.connect(self._url)
            try:
                await connection.execute(_ROLE)
                await connection.execute(_ENSURE, sorted(missing))
            finally:
                await connection.close()
        self._known |= missing

    def forget(self) -> None:
        self._known.clear()
