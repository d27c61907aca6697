"""The databases of one service: engines by role, sessions by tenant."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal, TypeVar, overload

from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from tenantry._tenant import Tenant
from tenantry._tracing import TENANT_ATTRIBUTE, Attributes, span
from tenantry.database._addresses import Addresses
from tenantry.database._binding import TenantConnection
from tenantry.database._bulkhead import Bulkhead
from tenantry.database._engines import TenantEngines
from tenantry.database._guard import guard_tenants
from tenantry.database._names import RoleNames
from tenantry.database._retry import retry_first_statement
from tenantry.database._session import (
    ReadSession,
    SyncReadSession,
    SystemSession,
    WriteSession,
    open_tenant_session,
)
from tenantry.database._settings import DatabaseSettings
from tenantry.database._tenant_column import TENANT_ID, TenantColumn
from tenantry.database._thread_places import ThreadPlaces
from tenantry.database._url import sqlalchemy_url
from tenantry.database._verify import verify_service_role, verify_system_role

if TYPE_CHECKING:
    from tenantry.database._sync_databases import SyncDatabases


T = TypeVar("T")

# Who has a database to itself shares its connections with nobody, and has no more of them than it may.
_OWN_DATABASES: Final = "databases of tenants"

RELAYED: Final = "tenantry_relayed"
"""The execution option of engines that says whether somebody publishes the outbox of their database."""


class Databases:
    """Engines and sessions of ``service``, for one process and one event loop.

    ``follow_placement`` says whether the service keeps a tenant where its placement says (a product service, which
    answers provisioning requests), or all tenants in the pool of its own database (the services of the backbone).
    ``tenant_column`` is how its tables name their tenant. Nothing connects before it is used. Call :meth:`dispose` at
    the end.
    """

    def __init__(
        self,
        service: str,
        settings: DatabaseSettings,
        *,
        follow_placement: bool = True,
        tenant_column: TenantColumn = TENANT_ID,
    ) -> None:
        self._settings = settings
        self._addresses = Addresses(service, settings, follow_placement, tenant_column)
        self._roles = RoleNames(service)
        self._stores: dict[str, AsyncEngine] = {}
        self._systems: dict[str, AsyncEngine] = {}
        self._sync: SyncDatabases | None = None
        self._thread_places = ThreadPlaces(settings.pool_timeout_seconds)
        self.bulkhead: Bulkhead | None = None
        """Shares the connections of each store between its tenants; without it, first come is first served."""
        self._tenants = TenantEngines(
            self._create_tenant_engine,
            engines=settings.tenant_engines,
            connections=settings.tenant_connections,
            pool_size=settings.tenant_pool_size,
            idle=settings.tenant_engine_idle_seconds,
            timeout=settings.pool_timeout_seconds,
        )

    @property
    def system(self) -> AsyncEngine:
        """The engine of the system role, whose policies see every tenant. Raises MissingUrl without its URL."""
        return self._system_engine(None)

    @property
    def stores(self) -> tuple[str | None, ...]:
        """The stores in which this process has the system role; None is the service's own."""
        return self._addresses.overseen

    @property
    def unseen_stores(self) -> tuple[str, ...]:
        """Stores in which this process lacks the system role."""
        return self._addresses.unseen

    def system_of(self, store: str | None) -> AsyncEngine:
        """The engine of the system role in one of :attr:`stores`. Raises UnknownStore, MissingUrl."""
        return self._system_engine(store)

    @property
    def sync(self) -> "SyncDatabases":
        """The same for code that is not async, with connections and caps of its own. Needs ``tenantry[sync]``."""
        if self._sync is None:
            from tenantry.database._sync_databases import SyncDatabases  # noqa: PLC0415 - the extra

            self._sync = SyncDatabases.at(self._addresses)
        return self._sync

    async def verify_roles(self) -> None:
        """Raises UnsafeRole if a role of this process could bypass row level security. To be called at the start."""
        for store in self._addresses.served:
            async with self._store_engine(store).connect() as connection:
                await connection.run_sync(verify_service_role, self._roles)
        for store in self._addresses.overseen:
            async with self._system_engine(store).connect() as connection:
                await connection.run_sync(verify_system_role, self._roles)

    @asynccontextmanager
    async def engine_for(self, tenant: Tenant) -> AsyncIterator[AsyncEngine]:
        """The service role's engine for the database that holds ``tenant``, kept open until the block ends.

        Its connections are not bound: without a tenant they see no rows. One block stands for one connection.
        """
        location = self._addresses.locate(tenant)
        own_database = self._addresses.own_database_url(location)
        if own_database is None:
            async with self._place(self._addresses.store_url(location.store), self._store_connections, tenant):
                yield self._store_engine(location.store)
        else:
            async with (
                self._place(_OWN_DATABASES, None, tenant),
                self._tenants.lease(own_database) as engine,
            ):
                yield engine

    @overload
    def tenant_session(
        self, tenant: Tenant | None = None, read_only: Literal[False] = False
    ) -> AbstractAsyncContextManager[WriteSession]: ...
    @overload
    def tenant_session(self, tenant: Tenant, read_only: Literal[True]) -> AbstractAsyncContextManager[ReadSession]: ...
    @overload
    def tenant_session(self, tenant: Tenant | None, read_only: bool) -> AbstractAsyncContextManager[ReadSession]: ...
    def tenant_session(
        self, tenant: Tenant | None = None, read_only: bool = False
    ) -> AbstractAsyncContextManager[ReadSession]:
        """A session of one transaction that is bound to ``tenant``; it commits when the block ends without an error.

        Without ``tenant`` it is the current one. ``read_only`` makes the server refuse every write. Before any SQL it
        raises NoTenant, TenantAlreadyBound in the scope of another tenant, UnusableTenantKey, ResidencyViolation, and
        UnknownStore for a placement that this process does not serve; ConnectionsExhausted, or what the bulkhead
        raises, under overload.
        """
        return self._tenant_session(self._addresses.choose(tenant), read_only=read_only)

    @asynccontextmanager
    async def _tenant_session(self, tenant: Tenant, *, read_only: bool) -> AsyncIterator[ReadSession]:
        binding = self._addresses.binding(tenant, read_only=read_only)
        # One span for the whole of it: statements hold values of rows. Not the current one: whoever uses a session may
        # end it in another context than it was begun in.
        attributes: Attributes = {
            TENANT_ATTRIBUTE: str(tenant.id),
            "db.system.name": "postgresql",
            "tenant.session.read_only": read_only,
        }
        with span("tenant session", "client", attributes=attributes, current=False):
            async with self.engine_for(tenant) as engine, open_tenant_session(engine, binding) as session:
                yield session
                await session.commit()

    @asynccontextmanager
    async def thread_session(
        self, tenant: Tenant | None = None, read_only: bool = False
    ) -> AsyncIterator[SyncReadSession]:
        """A session of :attr:`sync` for one thread at a time, such as that of a route of plain ``def``.

        The wait for a connection is here, where it holds no thread. It is a SyncWriteSession unless ``read_only``.
        """
        chosen = self._addresses.choose(tenant)
        location = self._addresses.locate(chosen)
        own_database = self._addresses.own_database_url(location)
        settings = self._settings
        async with AsyncExitStack() as stack:
            if own_database is None:
                url = self._addresses.store_url(location.store)
                pools = [(url, self._store_connections)]
                await stack.enter_async_context(self._place(f"threads {url}", self._store_connections, chosen))
            else:
                engines = min(settings.tenant_connections, settings.tenant_engines)
                pools = [(own_database, settings.tenant_pool_size), ("", engines)]
                await stack.enter_async_context(self._place(f"threads {_OWN_DATABASES}", None, chosen))
            await stack.enter_async_context(self._thread_places.enter(pools))
            manager = self.sync.tenant_session(chosen, read_only)
            yield await stack.enter_async_context(_ended_in_a_thread(manager))

    @asynccontextmanager
    async def system_session(self, store: str | None = None) -> AsyncIterator[SystemSession]:
        """A session of one transaction of the system role; it commits when the block ends without an error.

        It is in the service's own database, or in that of one of :attr:`stores`. Raises UnknownStore, MissingUrl.
        """
        async with SystemSession(self._system_engine(store), expire_on_commit=False) as session:
            yield session
            await session.commit()

    async def dispose(self) -> None:
        """Closes every connection. Sessions must have ended."""
        await self._tenants.dispose()
        for engine in (*self._stores.values(), *self._systems.values()):
            await engine.dispose()
        if self._sync is not None:
            await asyncio.to_thread(self._sync.dispose)
        self._stores.clear()
        self._systems.clear()
        self._sync = None

    @property
    def _store_connections(self) -> int:
        return self._settings.pool_size + self._settings.pool_overflow

    @asynccontextmanager
    async def _place(self, pool: str, size: int | None, tenant: Tenant) -> AsyncIterator[None]:
        if self.bulkhead is None:
            yield
            return
        place = await self.bulkhead.enter(pool, size, tenant)
        try:
            yield
        finally:
            place.release()

    def _store_engine(self, store: str | None) -> AsyncEngine:
        url = self._addresses.store_url(store)
        engine = self._stores.get(url)
        if engine is None:
            engine = self._create_engine(url, size=self._settings.pool_size, overflow=self._settings.pool_overflow)
            guard_tenants(engine.sync_engine)
            self._stores[url] = engine
        return engine

    def _system_engine(self, store: str | None) -> AsyncEngine:
        url = self._addresses.system_url_of(store)
        if url not in self._systems:
            self._systems[url] = self._create_engine(url, size=self._settings.system_pool_size, overflow=0)
        return self._systems[url]

    def _create_tenant_engine(self, url: str) -> AsyncEngine:
        engine = self._create_engine(url, size=self._settings.tenant_pool_size, overflow=0, relayed=False)
        guard_tenants(engine.sync_engine)
        return engine

    def _create_engine(self, url: str, *, size: int, overflow: int, relayed: bool = True) -> AsyncEngine:
        engine = create_async_engine(
            sqlalchemy_url(url),
            execution_options={RELAYED: relayed},
            pool_size=size,
            max_overflow=overflow,
            pool_timeout=self._settings.pool_timeout_seconds,
            hide_parameters=True,  # in its errors, which are logged: they are rows
            connect_args={"connection_class": TenantConnection},
        )
        retry_first_statement(engine.sync_engine)
        event.listen(engine.sync_engine, "checkout", _replace_closed)
        return engine


@asynccontextmanager
async def _ended_in_a_thread(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """``manager``, which does nothing that blocks before its end; its end is in a thread that is always to be had."""
    from anyio import CancelScope, CapacityLimiter  # noqa: PLC0415 - of the extras that have threads
    from anyio.to_thread import run_sync  # noqa: PLC0415

    value = manager.__enter__()
    limiter = CapacityLimiter(1)
    try:
        yield value
    except BaseException as error:
        with CancelScope(shield=True):
            if await run_sync(manager.__exit__, type(error), error, error.__traceback__, limiter=limiter):
                return
        raise
    with CancelScope(shield=True):
        await run_sync(manager.__exit__, None, None, None, limiter=limiter)


def _replace_closed(connection: DBAPIConnection, _: ConnectionPoolEntry, __: PoolProxiedConnection) -> None:
    """Has the pool connect anew where the server has closed the connection, such as by a restart.

    The driver has seen the end of its socket, so asking costs no round trip, unlike SQLAlchemy's own `pool_pre_ping`.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError
