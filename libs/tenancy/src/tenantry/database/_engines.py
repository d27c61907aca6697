"""Engines of tenants that have a database of their own: a bounded cache under one cap of connections."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from tenantry.database._capacity import Capacity, OpenEngine
from tenantry.database._errors import ConnectionsExhausted


class TenantEngines:
    """Least recently used engines first out; an engine that is leased is never disposed.

    ``connections`` bounds what all engines hold open together, idle ones included. A lease that finds none free waits
    as :class:`Capacity` says, and raises ConnectionsExhausted after ``timeout`` seconds. Belongs to one event loop.
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
        self._capacity = Capacity(
            create, engines=engines, connections=connections, pool_size=pool_size, idle=idle, monotonic=monotonic
        )
        self._idle = idle
        self._timeout = timeout
        self._sweep: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open_engines(self) -> int:
        return self._capacity.open_engines

    @property
    def connections(self) -> int:
        """How many connections may be open now, at most."""
        return self._capacity.connections

    @asynccontextmanager
    async def lease(self, url: str) -> AsyncIterator[AsyncEngine]:
        """The engine for ``url``, kept open until the block ends. One lease stands for one connection."""
        entry = await self._acquire(url)
        try:
            yield entry.engine
        finally:
            self._capacity.release(entry)
            self._settle()
            self._plan_sweep()

    async def evict_idle(self) -> None:
        """Disposes the engines that nobody has used for the idle time."""
        await self._close(self._capacity.take_idle())

    async def dispose(self) -> None:
        """Closes every engine. Leases must have ended."""
        if self._sweep is not None:
            self._sweep.cancel()
        await self._close(self._capacity.take_all())
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _acquire(self, url: str) -> OpenEngine[AsyncEngine]:
        granted = asyncio.Event()
        claim = self._capacity.claim(url, granted.set)
        self._settle()
        try:
            async with asyncio.timeout(self._timeout):
                await granted.wait()
        except BaseException as error:
            self._capacity.withdraw(claim)
            self._settle()
            if isinstance(error, TimeoutError):
                msg = f"no connection became free within {self._timeout} s"
                raise ConnectionsExhausted(msg) from None
            raise
        assert claim.entry is not None
        return claim.entry

    def _settle(self) -> None:
        if entries := self._capacity.settle():
            self._start(self._close(entries))

    async def _close(self, entries: Iterable[OpenEngine[AsyncEngine]]) -> None:
        for entry in entries:
            try:
                await entry.engine.dispose()
            finally:
                self._capacity.closed(entry)
                self._settle()

    def _plan_sweep(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._idle, self._start_sweep)

    def _start_sweep(self) -> None:
        self._sweep = None
        self._start(self.evict_idle())
        if self._capacity.open_engines:
            self._plan_sweep()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
