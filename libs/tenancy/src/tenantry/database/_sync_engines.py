"""The engines of :class:`TenantEngines` for threads: the same book-keeping under a lock."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from tenantry.database._capacity import Capacity, Claim, OpenEngine
from tenantry.database._errors import ConnectionsExhausted


class SyncTenantEngines:
    """As :class:`TenantEngines`, for any number of threads; a lease may be ended by another thread than its own."""

    def __init__(
        self,
        create: Callable[[str], Engine],
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
        self._lock = threading.Lock()
        self._idle = idle
        self._timeout = timeout
        self._sweep: threading.Timer | None = None

    @property
    def open_engines(self) -> int:
        return self._capacity.open_engines

    @property
    def connections(self) -> int:
        """How many connections may be open now, at most."""
        return self._capacity.connections

    @contextmanager
    def lease(self, url: str) -> Iterator[Engine]:
        """The engine for ``url``, kept open until the block ends. One lease stands for one connection."""
        entry = self._acquire(url)
        try:
            yield entry.engine
        finally:
            with self._lock:
                self._capacity.release(entry)
                closing = self._capacity.settle()
                self._plan_sweep()
            self._close(closing)

    def evict_idle(self) -> None:
        """Disposes the engines that nobody has used for the idle time."""
        with self._lock:
            closing = self._capacity.take_idle()
        self._close(closing)

    def dispose(self) -> None:
        """Closes every engine. Leases must have ended."""
        with self._lock:
            if self._sweep is not None:
                self._sweep.cancel()
                self._sweep = None
            closing = self._capacity.take_all()
        self._close(closing)

    def _acquire(self, url: str) -> OpenEngine[Engine]:
        granted = threading.Event()
        with self._lock:
            claim = self._capacity.claim(url, granted.set)
            closing = self._capacity.settle()
        self._close(closing)
        if not granted.wait(self._timeout):
            self._give_up(claim)
        assert claim.entry is not None
        return claim.entry

    def _give_up(self, claim: Claim[Engine]) -> None:
        with self._lock:
            if claim.entry is not None:  # in the last moment
                return
            self._capacity.withdraw(claim)
            closing = self._capacity.settle()
        self._close(closing)
        msg = f"no connection became free within {self._timeout} s"
        raise ConnectionsExhausted(msg)

    def _close(self, entries: list[OpenEngine[Engine]]) -> None:
        while entries:
            entry = entries.pop()
            try:
                entry.engine.dispose()
            finally:
                with self._lock:
                    self._capacity.closed(entry)
                    entries += self._capacity.settle()

    def _plan_sweep(self) -> None:
        if self._sweep is None:
            self._sweep = threading.Timer(self._idle, self._run_sweep)
            self._sweep.daemon = True  # it must not keep a process that ends
            self._sweep.start()

    def _run_sweep(self) -> None:
        with self._lock:
            self._sweep = None
        self.evict_idle()
        with self._lock:
            if self._capacity.open_engines:
                self._plan_sweep()
