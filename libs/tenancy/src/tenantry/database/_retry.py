"""Repeats the first statement of a transaction once when the server says that its prepared plan is stale.

A migration that changes a table's columns invalidates the prepared statements of every open connection, and the same
text prepared in one tenant's schema may have other columns in another's. As long as nothing else has run in the
transaction it can be started again unseen. Later statements are not repeated: what they build on is gone.
"""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.engine.interfaces import DBAPICursor

from tenantry.database._binding import Binding, find_binding, send_bind

_FIRST: Final = "tenantry.first_statement"


def retry_first_statement(engine: Engine) -> None:
    """Installs the repetition on ``engine``; it holds for transactions that begin with a binding call."""

    @event.listens_for(engine, "do_execute")
    def execute(cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext) -> bool:
        if (binding := find_binding(context)) is not None:
            send_bind(cursor, statement, context, binding)
            _state(context.root_connection)[_FIRST] = (statement, binding)
            return True
        return _run(context, cursor, lambda: context.dialect.do_execute(cursor, statement, parameters, context))

    @event.listens_for(engine, "do_executemany")
    def execute_many(cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext) -> bool:
        return _run(context, cursor, lambda: context.dialect.do_executemany(cursor, statement, parameters, context))

    @event.listens_for(engine, "rollback")
    @event.listens_for(engine, "commit")
    def end(connection: Connection) -> None:
        if not connection.invalidated:  # a cancelled statement closes its connection, and its pool entry goes with it
            _state(connection).pop(_FIRST, None)


def bind_in_a_pipeline(engine: Engine) -> None:
    """The same for an engine of psycopg, which prepares nothing and so has no stale plans."""

    @event.listens_for(engine, "do_execute")
    def execute(cursor: DBAPICursor, statement: str, _: Any, context: ExecutionContext) -> bool:
        if (binding := find_binding(context)) is None:
            return False
        send_bind(cursor, statement, context, binding)
        return True


def _run(context: ExecutionContext, cursor: DBAPICursor, send: Callable[[], None]) -> bool:
    first: tuple[str, Binding] | None = _state(context.root_connection).pop(_FIRST, None)
    if first is None:
        return False
    dialect = context.dialect
    stale = dialect.dbapi.InvalidCachedStatementError  # type: ignore[union-attr]  # asyncpg's, always loaded
    try:
        send()
    except stale as error:
        context.handle_dbapi_exception(error)  # forgets every prepared statement
        dialect.do_rollback(context.root_connection.connection)
        statement, binding = first
        send_bind(cursor, statement, context, binding)
        context.pre_exec()  # tells the cursor that what was prepared before now is stale
        send()
    return True


def _state(connection: Connection) -> dict[str, Any]:
    # The pool entry's: an engine's very first statements run before there is any other.
    info = connection.connection.record_info
    return {} if info is None else info
