"""The queues of a service: one in each store, and one in each database that is a tenant's own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import asyncpg
import structlog
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tenantry._backoff import Backoff
from tenantry._tenant import Isolation, Tenant
from tenantry.database import Databases, UnknownStore, tenant_database
from tenantry.jobs._queue import Queue

log = structlog.get_logger(__name__)

# Of procrastinate's trigger on new jobs.
_CHANNEL: Final = "procrastinate_any_queue_v1"


class Queues:
    """Those that this process has the system role for."""

    def __init__(self, service: str, databases: Databases) -> None:
        self._service = service
        self._databases = databases
        self.shared = {
            store: Queue("the service's own" if store is None else store, partial(self._shared, store))
            for store in databases.stores
        }
        self._own: dict[str, Queue] = {}

    async def own(self, tenant: Tenant) -> Queue | None:
        """The queue in the tenant's own database; None where it has none, or one that is not served here."""
        placement = tenant.placement
        if placement is None or placement.isolation is not Isolation.DATABASE:
            return None
        name = tenant_database(self._service, tenant.id)
        if name not in self._own:
            try:
                async with self._shared(placement.store) as connection:
                    url = connection.engine.url.set(database=name)
            except UnknownStore:
                return None
            self._own[name] = Queue(name, _without_pool(url).begin, own=True)
        return self._own[name]

    async def listen(self, store: str | None, notice: Callable[[], None]) -> None:
        """Calls `notice` at each new job in a store, and after every time in which it could not listen."""
        backoff = Backoff()
        while True:
            try:
                async with self._shared(store) as connection:
                    engine = _without_pool(connection.engine.url)
                async with engine.connect() as connection:
                    driver = (await connection.get_raw_connection()).driver_connection
                    assert isinstance(driver, asyncpg.Connection)
                    closed = asyncio.Event()
                    driver.add_termination_listener(lambda _, closed=closed: closed.set())
                    await driver.add_listener(_CHANNEL, lambda *_: notice())
                    notice()
                    backoff.reset()
                    await closed.wait()
            except (DBAPIError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("jobs_not_heard_of", error=type(error).__name__)
            await backoff.wait()

    @asynccontextmanager
    async def _shared(self, store: str | None) -> AsyncIterator[AsyncConnection]:
        async with self._databases.system_session(store) as session:
            yield await session.connection()


def _without_pool(url: URL) -> AsyncEngine:
    """No connection is left open between two uses, however many tenants have a database of their own."""
    return create_async_engine(url, poolclass=NullPool, hide_parameters=True)
