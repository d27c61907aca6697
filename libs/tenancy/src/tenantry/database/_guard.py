"""Keeps the statements of a product from changing what a tenant's connection is bound to.

This stops mistakes, early and with a reason. It is no defence against arbitrary SQL: whoever can run that can also call
a function that sets ``app.tenant_id``. Statements have parameters, never values pasted into them.
"""

import re
from enum import Enum, auto
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, Engine, Insert, event
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from tenantry.database._binding import BOUND, Binding, find_binding
from tenantry.database._errors import ForeignRow, StatementRefused
from tenantry.database._names import TENANT_SETTING

_TOUCHED: Final = "tenantry.touched"
_CHECKED: Final = "_tenantry_checked"
_PROTECTED: Final = frozenset({TENANT_SETTING, "search_path", "role", "session_authorization", "row_security"})

_SUSPICIOUS: Final = re.compile(
    r"\b(?:set_config|discard|reset|hold)\b|(?:^|[;/\n(])\s*(?:set\b|create\s+(?:global\s+|local\s+)?temp)"
    r"|\binto\s+(?:local\s+|global\s+)?temp",
    re.IGNORECASE,
)
_LITERALS: Final = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_COMMAND: Final = re.compile(
    r"(?:^|;)\s*(?:(?P<word>set|reset|discard)\b\s*(?P<rest>[^;]*)"
    r"|(?P<temporary>create\s+(?:global\s+|local\s+)?temp(?:orary)?\s+table\b[^;]*)"
    r"|(?P<hold>declare\s[^;]*\bwith\s+hold\b))",
    re.IGNORECASE,
)
_LOCAL: Final = re.compile(r'local\s+(?:"?(?P<name>[\w.]+)"?|session\s+authorization)', re.IGNORECASE)
_ENDS_WITH_THE_TRANSACTION: Final = re.compile(r"\bon\s+commit\s+(?:drop|delete\s+rows)\b", re.IGNORECASE)
_INTO_TEMPORARY: Final = re.compile(r"\binto\s+(?:local\s+|global\s+)?temp(?:orary)?\b", re.IGNORECASE)
_SET_CONFIG: Final = re.compile(r"\bset_config\s*\(", re.IGNORECASE)
_SET_CONFIG_LOCALLY: Final = re.compile(r"\bset_config\s*\([^()]*,\s*true\s*\)", re.IGNORECASE)


class _Verdict(Enum):
    HARMLESS = auto()
    SETS = auto()  # set_config for the transaction: which name is in the parameters, perhaps
    SETS_FOR_LONG = auto()  # set_config for the session, or until who knows when
    REFUSED = auto()


def guard_tenants(engine: Engine) -> None:
    """Installs the guard on an engine of the service role.

    Refused, before anything is sent: autocommit, where no transaction could be bound; SET, RESET and DISCARD but for
    SET LOCAL of settings that isolation does not rest on; temporary tables and cursors that outlive the transaction;
    rows of another tenant in an INSERT. A connection on which ``set_config`` may have left something is reset before it
    serves anybody else.
    """
    event.listen(engine, "set_connection_execution_options", _refuse_autocommit)
    event.listen(engine, "before_cursor_execute", _check)
    event.listen(engine, "reset", _reset)


def _refuse_autocommit(_: Connection, options: dict[str, Any]) -> None:
    if str(options.get("isolation_level", "")).upper() == "AUTOCOMMIT":
        msg = "a tenant is bound to a transaction; there is none in autocommit"
        raise StatementRefused(msg)


def _check(
    connection: Connection, _: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext, __: bool
) -> None:
    if find_binding(context) is not None:
        return
    binding: Binding | None = context.execution_options.get(BOUND)
    verdict = _judge(statement)
    if verdict is not _Verdict.HARMLESS:
        protected = _PROTECTED if binding is None else _PROTECTED | {binding.column.setting}
        if verdict is _Verdict.REFUSED or _names_any(protected, statement, parameters):
            msg = "it would change what the connection is bound to, or outlive the transaction"
            raise StatementRefused(msg)
        if verdict is _Verdict.SETS_FOR_LONG:
            connection.info[_TOUCHED] = True
    if binding is not None and context.isinsert:
        _check_rows(context, binding)


def _reset(connection: DBAPIConnection, entry: ConnectionPoolEntry, state: PoolResetState) -> None:
    """Only where there is need: it costs round trips, and every transaction is bound anew anyway."""
    if not state.terminate_only and entry.info.pop(_TOUCHED, False):
        connection.rollback()
        cursor = connection.cursor()
        cursor.execute("RESET ALL")
        cursor.close()
        connection.commit()


@lru_cache(maxsize=4096)
def _judge(statement: str) -> _Verdict:
    if _SUSPICIOUS.search(statement) is None:
        return _Verdict.HARMLESS
    bare = _LITERALS.sub(" ", statement)
    for command in _COMMAND.finditer(bare):
        if not _is_allowed(command):
            return _Verdict.REFUSED
    if _INTO_TEMPORARY.search(bare):
        return _Verdict.REFUSED
    if set_configs := len(_SET_CONFIG.findall(statement)):
        lasting = set_configs > len(_SET_CONFIG_LOCALLY.findall(statement))
        return _Verdict.SETS_FOR_LONG if lasting else _Verdict.SETS
    return _Verdict.HARMLESS


def _is_allowed(command: re.Match[str]) -> bool:
    if command["hold"]:
        return False
    if command["temporary"]:
        return _ENDS_WITH_THE_TRANSACTION.search(command["temporary"]) is not None
    rest = command["rest"].lower()
    if command["word"].lower() != "set" or rest.startswith(("constraints", "transaction")):
        return command["word"].lower() == "set"
    local = _LOCAL.match(rest)
    return local is not None and local["name"] not in {None, "session", *_PROTECTED} and not _is_of_ours(local["name"])


def _is_of_ours(setting: str) -> bool:
    """Settings of applications are where tenants' keys are bound; which one is it, only the session knows."""
    return "." in setting and setting.startswith("app.")


def _names_any(protected: frozenset[str], statement: str, parameters: Any) -> bool:
    lowered = statement.lower()
    if any(f"'{name}'" in lowered for name in protected):
        return True
    values = parameters.values() if isinstance(parameters, dict) else parameters
    return any(isinstance(value, str) and value.lower() in protected for value in values or ())


def _check_rows(context: ExecutionContext, binding: Binding) -> None:
    """Raises ForeignRow for an INSERT of SQLAlchemy's that names another tenant."""
    statement = context.compiled.statement if context.compiled is not None else None
    if not isinstance(statement, Insert) or getattr(context, _CHECKED, False):
        return
    setattr(context, _CHECKED, True)  # a long list of rows is sent in several statements
    column = binding.column.name
    if column not in statement.table.c:
        return
    key = str(binding.key)
    for row in context.compiled_parameters:  # type: ignore[attr-defined]  # of every context that has `compiled`
        for name, value in row.items():
            if value is not None and (name == column or name.startswith(f"{column}_m")) and str(value) != key:
                msg = f"a row with another {column} was to be inserted in a tenant's session"
                raise ForeignRow(msg)
