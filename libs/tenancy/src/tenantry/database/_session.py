"""Sessions that are bound to one tenant for life.

The bind begins every root transaction, fired by SQLAlchemy's ``after_begin``: none for savepoints, and again after a
commit in the middle of a request, which would otherwise drop it.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.sql.base import ExecutableOption

from tenantry._context import current_tenant_or_none
from tenantry._errors import TenantAlreadyBound
from tenantry.database._binding import Binding, bind
from tenantry.database._tenant_column import TenantKey


class BoundSession(Session):
    """A session of one tenant, on one engine, for life."""

    def __init__(self, *, binding: Binding, engine: Callable[[], Engine], **options: Any) -> None:
        super().__init__(**options)
        self._binding = binding
        self._engine = engine
        self.own_rows: ExecutableOption | None = None

    @property
    def binding(self) -> Binding:
        return self._binding

    @property
    def tenant_id(self) -> UUID:
        return self._binding.tenant_id

    @property
    def tenant_key(self) -> TenantKey:
        """What stands in the tenant column of every row that this session sees."""
        return self._binding.key

    def get_bind(self, *_: Any, bind: Engine | Connection | None = None, **__: Any) -> Engine:
        """The session's own engine, whatever is asked about. Raises TenantAlreadyBound for another."""
        engine = self._engine()
        if bind not in {None, engine} or self.bind not in {None, engine}:
            msg = "a tenant's session stays on its engine"
            raise TenantAlreadyBound(msg)
        return engine


@event.listens_for(BoundSession, "after_begin")
def _bind(session: BoundSession, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.nested:
        return
    current = current_tenant_or_none()
    if current is not None and current.id != session.tenant_id:
        raise TenantAlreadyBound("a session of one tenant is used in the scope of another")
    bind(connection, session.binding)


class ReadSession(AsyncSession):
    """A session that only reads: the server refuses every write."""


class WriteSession(ReadSession):
    """A session of one tenant that reads and writes."""


class SystemSession(AsyncSession):
    """A session of the system role, which sees every tenant. No tenant is bound."""


class SyncReadSession(BoundSession):
    """A :class:`ReadSession` for code that is not async."""


class SyncWriteSession(SyncReadSession):
    """A :class:`WriteSession` for code that is not async."""


class SyncSystemSession(Session):
    """A :class:`SystemSession` for code that is not async."""


def open_tenant_session(engine: AsyncEngine, binding: Binding) -> WriteSession:
    """A session for the rows of one tenant; nothing is sent before the first statement.

    A read-only session is a WriteSession to the type checker of this module only; :class:`Databases` narrows it.
    """
    return WriteSession(
        sync_session_class=BoundSession,
        expire_on_commit=False,
        binding=binding,
        engine=lambda: engine.sync_engine,
    )


def open_sync_tenant_session(engine: Callable[[], Engine], binding: Binding) -> SyncWriteSession:
    """The same; ``engine`` is asked for at the first statement."""
    return SyncWriteSession(expire_on_commit=False, binding=binding, engine=engine)
