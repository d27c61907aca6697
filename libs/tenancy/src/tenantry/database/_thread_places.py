"""Lets sync sessions wait for their connection before they are given a thread.

A thread that waits for a connection is one that the holder of a connection may need to go on: its route has returned,
and FastAPI wants a thread to make the answer of it. With all threads waiting, nothing moves until one gives up.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from tenantry.database._errors import ConnectionsExhausted


class ThreadPlaces:
    """As many places in each pool as it has connections. Belongs to one event loop."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._pools: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def enter(self, pools: Iterable[tuple[str, int]]) -> AsyncIterator[None]:
        """A place in each of ``pools``, names with sizes, until the block ends. Raises ConnectionsExhausted."""
        async with AsyncExitStack() as places:
            try:
                async with asyncio.timeout(self._timeout):
                    for name, size in pools:
                        await places.enter_async_context(self._pools.setdefault(name, asyncio.Semaphore(size)))
            except TimeoutError:
                msg = f"no connection became free within {self._timeout} s"
                raise ConnectionsExhausted(msg) from None
            yield
