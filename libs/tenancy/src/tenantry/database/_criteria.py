"""The tenant's predicate in every statement of the ORM, beside row level security.

The policies are the floor. The predicate is what the planner sees: it compares the column with a value, and so finds
the index and the right estimate. Statements of Core and text have the policies alone, unless they say it themselves,
and so have those that refresh or write one row that is loaded already, by its primary key.
"""

from typing import Any, Final

from sqlalchemy import BigInteger, BindParameter, ColumnElement, Integer, SmallInteger, Text, Uuid, bindparam, event
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.orm import LoaderCriteriaOption, ORMExecuteState, UOWTransaction
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeEngine

from tenantry.database._binding import BOUND, Binding
from tenantry.database._errors import ForeignRow, UnusableTenantKey
from tenantry.database._session import BoundSession

_TYPES: Final[dict[str, TypeEngine[Any]]] = {
    "uuid": Uuid(),
    "text": Text(),
    "smallint": SmallInteger(),
    "integer": Integer(),
    "bigint": BigInteger(),
}


class TenantScoped:
    """Marks a mapped class whose rows belong to tenants: the session adds its predicate to statements about it.

    The class has the tenant column of the product's :class:`TenantColumn`, under an attribute of the same name.
    """


def bound_tenant(context: ExecutionContext) -> Any:
    """The default of a tenant column: ``mapped_column(BigInteger, default=bound_tenant)``.

    Raises UnusableTenantKey outside a tenant's session, where the row has to say whose it is.
    """
    binding: Binding | None = context.execution_options.get(BOUND)
    if binding is None:
        msg = "a row without its tenant was to be inserted outside a tenant's session"
        raise UnusableTenantKey(msg)
    return binding.key


class _OwnRows(LoaderCriteriaOption):
    """Adds the predicate to every tenant's entity in a statement, joins, aliases and later loads included.

    SQLAlchemy's own criteria for many classes are a function, whose result it remembers by the function's code. Here
    the value is a parameter of the statement's cache key like any other: none is remembered with a tenant in it.
    """

    __slots__ = ("binding", "column")

    _traverse_internals = [  # noqa: RUF012 - SQLAlchemy's form
        *LoaderCriteriaOption._traverse_internals,  # noqa: SLF001
        ("column", InternalTraversal.dp_string),
    ]

    def __init__(self, binding: Binding) -> None:
        key: BindParameter[Any] = bindparam(None, binding.key, type_=_TYPES[binding.column.type], unique=True)
        super().__init__(TenantScoped, key, include_aliases=True)
        self.binding = binding
        self.column = binding.column.name

    def _resolve_where_criteria(self, ext_info: Any) -> ColumnElement[bool]:
        criterion: ColumnElement[bool] = getattr(ext_info.entity, self.column) == self.where_criteria
        return criterion._annotate({"for_loader_criteria": self})  # noqa: SLF001 - what SQLAlchemy's own does

    def __reduce__(self) -> tuple[Any, ...]:  # a row that is pickled takes along how it was loaded
        return _OwnRows, (self.binding,)


@event.listens_for(BoundSession, "do_orm_execute")
def _add_predicate(state: ORMExecuteState) -> None:
    session = state.session
    if state.is_insert or not state.is_orm_statement or not isinstance(session, BoundSession):
        return
    # A later load brings along what its row was loaded with, and a row that was added here has nothing to bring.
    if not any(isinstance(option, _OwnRows) for option in state.statement._with_options):  # noqa: SLF001 - not public
        if session.own_rows is None:
            session.own_rows = _OwnRows(session.binding)
        state.statement = state.statement.options(session.own_rows)


@event.listens_for(BoundSession, "before_flush")
def _claim_rows(session: BoundSession, _: UOWTransaction, __: Any) -> None:
    """Gives new rows the session's tenant; raises ForeignRow for a row that says another."""
    binding = session.binding
    for row in (*session.new, *session.dirty, *session.deleted):
        if isinstance(row, TenantScoped):
            owner = getattr(row, binding.column.name)
            if owner is None:
                setattr(row, binding.column.name, binding.key)
            elif str(owner) != str(binding.key):
                msg = f"a {type(row).__name__} with another {binding.column.name} was given to a tenant's session"
                raise ForeignRow(msg)
