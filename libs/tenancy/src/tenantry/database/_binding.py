"""Binds a transaction to a tenant in the round trip that begins it.

asyncpg sends BEGIN as a simple query, which may hold a second statement: the bind costs no round trip. psycopg puts
BEGIN and the call into one pipeline.
"""

from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError

from tenantry._errors import TenantAlreadyBound
from tenantry.database._tenant_column import TenantColumn, TenantKey

BOUND: Final = "tenantry_bound"
"""The execution option of a bound connection: its `Binding`."""

_BINDS: Final = "tenantry_binds"
_INVALID_TRANSACTION_STATE: Final = "25000"


@dataclass(frozen=True, slots=True)
class Binding:
    """What the transactions of one session are bound to."""

    tenant_id: UUID
    schema: str
    read_only: bool
    column: TenantColumn
    key: TenantKey

    @property
    def arguments(self) -> tuple[str | bool, ...]:
        """Those of ``tenantry.bind``."""
        arguments = (str(self.tenant_id), self.schema, self.read_only)
        return (*arguments, str(self.key)) if self.column.has_own_setting else arguments


class TenantConnection(asyncpg.Connection):
    """An asyncpg connection that sends ``opening`` together with the statement that begins a transaction."""

    __slots__ = ("opening", "refusal")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.opening: str | None = None
        self.refusal: asyncpg.PostgresError | None = None

    async def execute(self, query: str, *arguments: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's
        opening, self.opening = self.opening, None
        if opening is None:
            return await super().execute(query, *arguments, timeout=timeout)
        try:
            return await super().execute(query + opening, timeout=timeout)
        except asyncpg.PostgresError as error:
            if not self.is_in_transaction():
                raise
            # BEGIN has run, so asyncpg must believe in a transaction, or it could never be rolled back.
            self.refusal = error
            return ""


def bind(connection: Connection, binding: Binding) -> None:
    """Begins and binds the transaction of ``connection``, on which nothing has been executed yet.

    Raises TenantAlreadyBound, and closes the connection, where a former user has left it bound to another tenant.
    """
    marks = ("%s" if connection.dialect.driver == "psycopg" else f"${n}" for n in range(1, 5))
    call = ", ".join(mark for mark, _ in zip(marks, binding.arguments, strict=False))
    connection.execution_options(**{BOUND: binding})
    try:
        connection.exec_driver_sql(
            f"SELECT tenantry.bind({call})", binding.arguments, execution_options={_BINDS: True}
        ).close()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _INVALID_TRANSACTION_STATE:
            connection.invalidate(error)
            msg = "the connection was still bound to another tenant and has been closed"
            raise TenantAlreadyBound(msg) from error
        raise


def find_binding(context: ExecutionContext) -> Binding | None:
    """The binding where ``context`` is that of the binding call itself."""
    return context.execution_options[BOUND] if context.execution_options.get(_BINDS) else None


def send_bind(cursor: DBAPICursor, statement: str, context: ExecutionContext, binding: Binding) -> None:
    """Begins the transaction and binds it."""
    adapted = context.root_connection.connection.dbapi_connection
    driver = context.root_connection.connection.driver_connection
    if isinstance(driver, TenantConnection):
        _begin(cast("Any", adapted), driver, f" SELECT tenantry.bind({_literals(binding)})")
    else:
        with cast("Any", driver).pipeline():
            cursor.execute(statement, binding.arguments)


def _begin(adapted: Any, driver: TenantConnection, opening: str) -> None:
    """Has SQLAlchemy's adapter of asyncpg begin now, and not with the first statement."""
    driver.opening = opening
    adapted.run_async(lambda _: adapted._start_transaction())  # noqa: SLF001 - nothing public begins without a statement
    refusal, driver.refusal = driver.refusal, None
    if refusal is not None:
        adapted._handle_exception(refusal)  # noqa: SLF001 - translates it, as of any other statement


def _literals(binding: Binding) -> str:
    return ", ".join(
        ("true" if argument else "false") if isinstance(argument, bool) else _literal(argument)
        for argument in binding.arguments
    )


def _literal(text: str) -> str:
    """A literal that means the same whatever standard_conforming_strings is."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
