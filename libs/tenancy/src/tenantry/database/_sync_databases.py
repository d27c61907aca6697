"""The databases of one service for code that is not async: routes of plain ``def``, scripts, Celery. psycopg 3."""

import selectors
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Literal, Self, overload

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from tenantry._tenant import Tenant
from tenantry.database._addresses import Addresses
from tenantry.database._guard import guard_tenants
from tenantry.database._names import RoleNames
from tenantry.database._retry import bind_in_a_pipeline
from tenantry.database._session import SyncReadSession, SyncSystemSession, SyncWriteSession, open_sync_tenant_session
from tenantry.database._settings import DatabaseSettings
from tenantry.database._sync_engines import SyncTenantEngines
from tenantry.database._tenant_column import TENANT_ID, TenantColumn
from tenantry.database._url import sync_sqlalchemy_url
from tenantry.database._verify import verify_service_role, verify_system_role


class SyncDatabases:
    """As :class:`Databases`, for any number of threads, with the same settings and the same caps, which are its own.

    A process that uses both may so hold twice the connections. :attr:`Databases.sync` is the one of a tenancy.
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
        self._lock = threading.Lock()
        self._stores: dict[str, Engine] = {}
        self._system: Engine | None = None
        self._tenants = SyncTenantEngines(
            self._create_tenant_engine,
            engines=settings.tenant_engines,
            connections=settings.tenant_connections,
            pool_size=settings.tenant_pool_size,
            idle=settings.tenant_engine_idle_seconds,
            timeout=settings.pool_timeout_seconds,
        )

    @classmethod
    def at(cls, addresses: Addresses) -> Self:
        """Where another way in finds the same tenants."""
        return cls(
            addresses.service,
            addresses.settings,
            follow_placement=addresses.follow,
            tenant_column=addresses.column,
        )

    @property
    def system(self) -> Engine:
        """The engine of the system role, whose policies see every tenant. Raises MissingUrl without its URL."""
        with self._lock:
            if self._system is None:
                url = self._addresses.system_url
                self._system = self._create_engine(url, size=self._settings.system_pool_size, overflow=0)
            return self._system

    def verify_roles(self) -> None:
        """Raises UnsafeRole if a role of this process could bypass row level security. To be called at the start."""
        for store in self._addresses.served:
            with self._store_engine(store).connect() as connection:
                verify_service_role(connection, self._roles)
        if self._settings.system_database_url is not None:
            with self.system.connect() as connection:
                verify_system_role(connection, self._roles)

    @contextmanager
    def engine_for(self, tenant: Tenant) -> Iterator[Engine]:
        """The service role's engine for the database that holds ``tenant``, kept open until the block ends.

        Its connections are not bound: without a tenant they see no rows. One block stands for one connection.
        """
        location = self._addresses.locate(tenant)
        own_database = self._addresses.own_database_url(location)
        if own_database is None:
            yield self._store_engine(location.store)
        else:
            with self._tenants.lease(own_database) as engine:
                yield engine

    @overload
    def tenant_session(
        self, tenant: Tenant | None = None, read_only: Literal[False] = False
    ) -> AbstractContextManager[SyncWriteSession]: ...
    @overload
    def tenant_session(self, tenant: Tenant, read_only: Literal[True]) -> AbstractContextManager[SyncReadSession]: ...
    @overload
    def tenant_session(self, tenant: Tenant | None, read_only: bool) -> AbstractContextManager[SyncReadSession]: ...
    def tenant_session(
        self, tenant: Tenant | None = None, read_only: bool = False
    ) -> AbstractContextManager[SyncReadSession]:
        """A session of one transaction that is bound to ``tenant``; it commits when the block ends without an error.

        Raises as :meth:`Databases.tenant_session`, but what concerns connections with the first statement.
        """
        return self._tenant_session(self._addresses.choose(tenant), read_only=read_only)

    @contextmanager
    def _tenant_session(self, tenant: Tenant, *, read_only: bool) -> Iterator[SyncReadSession]:
        binding = self._addresses.binding(tenant, read_only=read_only)
        with ExitStack() as leases:
            # With the first statement and not before: an event loop may open the session, but must not wait here.
            engine = cache(lambda: leases.enter_context(self.engine_for(tenant)))
            with open_sync_tenant_session(engine, binding) as session:
                yield session
                session.commit()

    @contextmanager
    def system_session(self) -> Iterator[SyncSystemSession]:
        """A session of one transaction of the system role; it commits when the block ends without an error."""
        with SyncSystemSession(self.system, expire_on_commit=False) as session:
            yield session
            session.commit()

    def dispose(self) -> None:
        """Closes every connection. Sessions must have ended."""
        self._tenants.dispose()
        with self._lock:
            engines = [*self._stores.values(), *([self._system] if self._system else [])]
            self._stores.clear()
            self._system = None
        for engine in engines:
            engine.dispose()

    def _store_engine(self, store: str | None) -> Engine:
        url = self._addresses.store_url(store)
        with self._lock:
            engine = self._stores.get(url)
            if engine is None:
                engine = self._create_engine(url, size=self._settings.pool_size, overflow=self._settings.pool_overflow)
                guard_tenants(engine)
                self._stores[url] = engine
            return engine

    def _create_tenant_engine(self, url: str) -> Engine:
        engine = self._create_engine(url, size=self._settings.tenant_pool_size, overflow=0)
        guard_tenants(engine)
        return engine

    def _create_engine(self, url: str, *, size: int, overflow: int) -> Engine:
        engine = create_engine(
            sync_sqlalchemy_url(url),
            pool_size=size,
            max_overflow=overflow,
            pool_timeout=self._settings.pool_timeout_seconds,
            hide_parameters=True,  # in its errors, which are logged: they are rows
            # Nothing is prepared on the server: the same text has other columns in another tenant's schema.
            connect_args={"prepare_threshold": None},
        )
        bind_in_a_pipeline(engine)
        event.listen(engine, "checkout", _replace_closed)
        return engine


def _replace_closed(connection: DBAPIConnection, _: ConnectionPoolEntry, __: PoolProxiedConnection) -> None:
    """Has the pool connect anew where the server has closed the connection, such as by a restart.

    Nobody sends anything on an idle connection but a server that ends it, so asking the socket costs no round trip.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        if selector.select(0):
            raise DisconnectionError
