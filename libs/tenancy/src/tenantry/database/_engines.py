"""Engines of tenants that have a database of their own: a bounded cache under one cap of connections."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from tenantry.database._errors import ConnectionsExhausted


@dataclass(slots=True)
class _Entry:
    engine: AsyncEngine
    leases: int = 0
    connections: int = 0  # what the engine's pool may hold open: the most leases it had at one time
    last_used: float = 0.0


class TenantEngines:
    """Least recently used engines first out; an engine that is leased is never disposed.

    ``connections`` bounds what all engines hold open together, idle ones included; a lease that needs one more first
    closes engines that nobody uses, then waits, and raises ConnectionsExhausted after ``timeout`` seconds. Belongs to
    one event loop.
    """

    def __init__(
        self,
        create: Callable[[str], AsyncEngine],
        *,
        engines: int,
        connections: int,
        pool_size: int,
        idle: float,
        timeout: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._create = create
        self._max_engines = engines
        self._max_connections = connections
        self._pool_size = pool_size
        self._idle = idle
        self._timeout = timeout
        self._monotonic = monotonic
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._closing = 0  # connections of engines that are being disposed
        self._changed = asyncio.Event()
        self._sweep: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open_engines(self) -> int:
        return len(self._entries)

    @property
    def connections(self) -> int:
        """How many connections may be open now, at most."""
        return self._closing + sum(entry.connections for entry in self._entries.values())

    @asynccontextmanager
    async def lease(self, url: str) -> AsyncIterator[AsyncEngine]:
        """The engine for ``url``, kept open until the block ends. One lease stands for one connection."""
        try:
            async with asyncio.timeout(self._timeout):
                entry = await self._acquire(url)
        except TimeoutError:
            msg = f"no connection became free within {self._timeout} s"
            raise ConnectionsExhausted(msg) from None
        try:
            yield entry.engine
        finally:
            self._release(entry)

    async def evict_idle(self) -> None:
        """Disposes the engines that nobody has used for the idle time."""
        deadline = self._monotonic() - self._idle
        for url, entry in list(self._entries.items()):
            if entry.leases == 0 and entry.last_used <= deadline:
                await self._dispose(url)

    async def dispose(self) -> None:
        """Closes every engine. Leases must have ended."""
        if self._sweep is not None:
            self._sweep.cancel()
        for url in list(self._entries):
            await self._dispose(url)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _acquire(self, url: str) -> _Entry:
        while True:
            entry = self._entries.get(url)
            if entry is not None and (entry.leases < entry.connections or entry.connections == self._pool_size):
                return self._lease(url, entry)
            room = len(self._entries) + (entry is None) <= self._max_engines
            if room and self.connections < self._max_connections:
                if entry is None:
                    entry = self._entries[url] = _Entry(self._create(url))
                return self._lease(url, entry)
            victim = next((key for key, e in self._entries.items() if e.leases == 0 and key != url), None)
            if victim is not None:
                await self._dispose(victim)
                continue
            self._changed.clear()
            await self._changed.wait()

    def _lease(self, url: str, entry: _Entry) -> _Entry:
        # Without an await since the check: of tasks that come at once, each sees what the former took.
        entry.leases += 1
        entry.connections = min(max(entry.connections, entry.leases), self._pool_size)
        self._entries.move_to_end(url)
        return entry

    def _release(self, entry: _Entry) -> None:
        entry.leases -= 1
        entry.last_used = self._monotonic()
        self._changed.set()
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._idle, self._start_sweep)

    def _start_sweep(self) -> None:
        self._sweep = None
        task = asyncio.get_running_loop().create_task(self.evict_idle())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._entries:
            self._sweep = asyncio.get_running_loop().call_later(self._idle, self._start_sweep)

    async def _dispose(self, url: str) -> None:
        # Out of the cache before the first await: who comes meanwhile makes a new engine, and the connections that are
        # still closing count until they are closed.
        entry = self._entries.pop(url)
        self._closing += entry.connections
        try:
            await entry.engine.dispose()
        finally:
            self._closing -= entry.connections
            self._changed.set()
