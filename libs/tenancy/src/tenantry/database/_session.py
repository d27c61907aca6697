"""Sessions that are bound to one tenant for life.

The bind is the first statement of every root transaction, fired by SQLAlchemy's ``after_begin``: one round trip more a
transaction, none for savepoints, and again after a commit in the middle of a request, which would otherwise drop it.
"""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from tenantry._context import current_tenant_or_none
from tenantry._errors import TenantAlreadyBound
from tenantry.database._retry import expect_first_statement

BIND: Final = "SELECT tenantry.bind($1, $2, $3)"


class ReadSession(AsyncSession):
    """A session that only reads: the server refuses every write."""


class WriteSession(ReadSession):
    """A session of one tenant that reads and writes."""


class SystemSession(AsyncSession):
    """A session of the system role, which sees every tenant. No tenant is bound."""


class _BoundSession(Session):
    def __init__(self, *, tenant_id: UUID, schema: str, read_only: bool, **options: Any) -> None:
        super().__init__(**options)
        self.tenant_id = tenant_id
        self._binding = (str(tenant_id), schema, read_only)

    @property
    def binding(self) -> tuple[str, str, bool]:
        return self._binding


@event.listens_for(_BoundSession, "after_begin")
def _bind(session: _BoundSession, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.nested:
        return
    current = current_tenant_or_none()
    if current is not None and current.id != session.tenant_id:
        raise TenantAlreadyBound("a session of one tenant is used in the scope of another")
    connection.exec_driver_sql(BIND, session.binding)
    expect_first_statement(connection, (BIND, session.binding))


def open_tenant_session(engine: AsyncEngine, tenant_id: UUID, schema: str, *, read_only: bool) -> WriteSession:
    """A session for the rows of one tenant in ``schema``; nothing is sent before the first statement.

    A read-only session is a WriteSession to the type checker of this module only; :class:`Databases` narrows it.
    """
    return WriteSession(
        engine,
        sync_session_class=_BoundSession,
        expire_on_commit=False,
        tenant_id=tenant_id,
        schema=schema,
        read_only=read_only,
    )
