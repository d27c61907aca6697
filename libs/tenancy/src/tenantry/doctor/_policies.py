"""Reads the expression of a policy: whether it holds a row to the session's tenant, and what is wrong with how.

`sqlglot` parses what pg_get_expr prints. An expression binds where every way for it to be true compares the tenant
column (or, for a table that belongs to tenants through another, its foreign key) with something that is no column of
the row. Each way that does not is an escape of some kind; without an escape the policy holds.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from typing import Final, TypeAlias

from sqlglot import ErrorLevel, exp, parse_one
from sqlglot.errors import SqlglotError

_TEXT: Final = ("text", "character varying", "varchar", "character", "char", "name", "citext")
# Values that no tenant has: a fallback to one of them closes.
_NOBODY: Final = frozenset({"", "0", "-1", "00000000-0000-0000-0000-000000000000"})


class Escape(Enum):
    """A way for an expression to be true without comparing the tenant."""

    ALWAYS = auto()
    UNSET = auto()
    """True where the session has no tenant."""
    SHARED_ROW = auto()
    """True for rows without a tenant."""
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Reading:
    """What an expression does. `binds` says that some way to be true compares the tenant."""

    binds: bool
    escapes: tuple[tuple[Escape, str], ...]
    defaults: tuple[str, ...] = ()
    """Tenants that a session without one falls back to."""
    raising: tuple[str, ...] = ()
    """Settings read without `missing_ok`."""
    bare_casts: tuple[str, ...] = ()
    """Settings cast to a type without NULLIF."""
    tables: tuple[str, ...] = ()
    """Tables that sub-selects read."""
    wrapped: bool = False
    """The tenant column is compared as a cast or a function of it."""
    row_functions: tuple[str, ...] = ()
    """Functions of the database's own, called outside a sub-select."""
    columns: frozenset[str] = frozenset()
    """The columns of the row that it looks at."""

    def escapes_by(self, *kinds: Escape) -> list[str]:
        return [text for kind, text in self.escapes if kind in kinds]


@dataclass(frozen=True, slots=True)
class Target:
    """The table that a policy is on, as far as its expression can name it."""

    name: str
    columns: frozenset[str]
    keys: frozenset[str]
    """The tenant column, or the columns of the foreign key that leads to it."""
    text_keys: frozenset[str] = field(default=frozenset())
    """Those of `keys` whose cast to text changes nothing, so that an index still serves."""


class Unreadable(Exception):
    """The expression was not understood."""


def text_type(type_: str) -> bool:
    return type_.partition("(")[0] in _TEXT


def read_expression(expression: str, target: Target) -> Reading:
    """Raises `Unreadable`."""
    tree = _parse(expression)
    walk = _Walk(target)
    binds, escapes = walk.ways(tree)
    return Reading(
        binds=binds,
        escapes=tuple(dict.fromkeys(escapes)),
        defaults=tuple(dict.fromkeys(walk.defaults)),
        raising=tuple(dict.fromkeys(_raising(tree))),
        bare_casts=tuple(dict.fromkeys(_bare_casts(tree))),
        tables=tuple(dict.fromkeys(_tables(tree))),
        wrapped=walk.wrapped,
        row_functions=tuple(dict.fromkeys(_row_functions(tree))),
        columns=walk.row_columns(tree),
    )


@lru_cache(maxsize=4096)
def _parse(expression: str) -> exp.Expr:
    try:
        return parse_one(expression, dialect="postgres", error_level=ErrorLevel.RAISE)
    except (SqlglotError, RecursionError) as error:
        raise Unreadable(str(error)) from None


# Whether some way to be true compares the tenant, and the ways that do not, each as it is written.
Ways: TypeAlias = tuple[bool, list[tuple[Escape, str]]]


class _Walk:
    """Goes down the boolean operators of one expression."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.defaults: list[str] = []
        self.wrapped = False

    def ways(self, node: exp.Expr) -> Ways:
        """Whether some way for `node` to be true compares the tenant, and the ways that do not."""
        node = _bare(node)
        match node:
            case exp.And():
                return self._both(node)
            case exp.Or():
                left, right = self.ways(node.left), self.ways(node.right)
                return left[0] or right[0], [*left[1], *right[1]]
            case exp.Case():
                return self._case(node)
        if _is_never(node):
            return False, []
        if self._binds(node):
            return True, []
        return False, [(self._escape(node), _text(node))]

    def _both(self, node: exp.And) -> Ways:
        sides = self.ways(node.left), self.ways(node.right)
        for binds, escapes in sides:
            if not escapes:
                return binds, []  # what one side closes stays closed
        binding = [side for side in sides if side[0]]
        return min(binding, key=lambda side: len(side[1])) if binding else (False, [(Escape.OTHER, _text(node))])

    def _case(self, node: exp.Case) -> Ways:
        binds = False
        escapes: list[tuple[Escape, str]] = []
        for branch in node.args["ifs"]:
            if _is_true(branch.args["true"]):
                # CASE WHEN a THEN true is a way to be true on a alone.
                bound, found = self.ways(branch.this)
            else:
                bound, found = self.ways(branch.args["true"])
            binds |= bound
            escapes += found
        default = node.args.get("default")
        if default is not None:
            bound, found = self.ways(default)
            binds |= bound
            escapes += found
        return binds, escapes

    def _binds(self, node: exp.Expr) -> bool:
        if isinstance(node, exp.EQ | exp.NullSafeEQ):
            return self._compares(node.left, node.right) or self._compares(node.right, node.left)
        if isinstance(node, exp.In):
            return self._is_key(node.this)
        if isinstance(node, exp.Exists):
            return self._mentions_key(node.this)
        if (call := _call(node)) is not None:
            # A function of the database's own that is given the tenant is taken at its word.
            return any(self._is_key(argument) for argument in call.expressions)
        return False

    def _compares(self, one: exp.Expr, other: exp.Expr) -> bool:
        if not self._is_key(one) or self.row_columns(other):
            return False
        column = _bare(one)
        if not isinstance(column, exp.Column) and not (
            isinstance(column, exp.Cast) and _name(_bare(column.this)) in self._target.text_keys
        ):
            self.wrapped = True
        self.defaults += _defaults(other)
        return True

    def _is_key(self, node: exp.Expr) -> bool:
        """The tenant column, or a cast or function of nothing but it."""
        node = _bare(node)
        if isinstance(node, exp.Column):
            return _name(node) in self._target.keys and node.table in {"", self._target.name}
        if isinstance(node, exp.Coalesce):
            return False
        columns = list(node.find_all(exp.Column))
        return (
            isinstance(node, exp.Cast | exp.Func | exp.Tuple) and bool(columns) and any(map(self._is_key, columns))
        ) and node.find(exp.Select) is None

    def row_columns(self, node: exp.Expr) -> frozenset[str]:
        """The columns of the row that is looked at; within a sub-select they are named with their table."""
        return frozenset(
            _name(column)
            for column in node.find_all(exp.Column)
            if _name(column) in self._target.columns
            and column.table in ({self._target.name} if column.find_ancestor(exp.Select) else {"", self._target.name})
        )

    def _mentions_key(self, select: exp.Expr) -> bool:
        """Whether the sub-select is tied to the tenant, or the parent, of the row that is looked at."""
        return any(
            _name(column) in self._target.keys and column.table == self._target.name
            for column in select.find_all(exp.Column)
            if column.find_ancestor(exp.EQ, exp.In) is not None
        )

    def _escape(self, node: exp.Expr) -> Escape:
        match node:
            case exp.Is(expression=exp.Null()):
                negated = bool(node.args.get("negate"))
                if self._is_key(node.this):
                    return Escape.ALWAYS if negated else Escape.SHARED_ROW
                return Escape.OTHER if negated or self.row_columns(node.this) else Escape.UNSET
            case exp.EQ():
                return self._escape_of_equality(_bare(node.left), _bare(node.right))
        return Escape.ALWAYS if _is_true(node) else Escape.OTHER

    def _escape_of_equality(self, left: exp.Expr, right: exp.Expr) -> Escape:
        sides = (left, right)
        if left == right:
            return Escape.ALWAYS
        if any(_literal(side) == "" for side in sides) and not any(map(self.row_columns, sides)):
            return Escape.UNSET  # current_setting(...) = ''
        if any(map(self._is_key, sides)) and any(
            self._is_key(column)
            for side in sides
            for fallback in side.find_all(exp.Coalesce)
            for column in fallback.find_all(exp.Column)
        ):
            return Escape.UNSET  # tenant_id = COALESCE(setting, tenant_id)
        return Escape.OTHER


def _bare(node: exp.Expr) -> exp.Expr:
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def _name(node: exp.Expr) -> str:
    # pg_get_expr quotes whatever is not plain lower case, so that the name is the column's own.
    return node.name


def _text(node: exp.Expr) -> str:
    return node.sql(dialect="postgres")


def _is_true(node: exp.Expr) -> bool:
    node = _bare(node)
    if isinstance(node, exp.Not):
        inner = _bare(node.this)
        return isinstance(inner, exp.Boolean) and not inner.this
    return isinstance(node, exp.Boolean) and bool(node.this)


def _is_never(node: exp.Expr) -> bool:
    while isinstance(node, exp.Paren | exp.Cast):
        node = node.this
    return isinstance(node, exp.Null) or (isinstance(node, exp.Boolean) and not node.this)


def _literal(node: exp.Expr) -> str | None:
    node = _bare(node)
    while isinstance(node, exp.Cast):
        node = _bare(node.this)
    if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal):
        return f"-{node.this.this}"
    return str(node.this) if isinstance(node, exp.Literal) else None


def _call(node: exp.Expr) -> exp.Anonymous | None:
    """The call of a function that is not PostgreSQL's own: with pg_catalog as the path it is printed with a schema."""
    if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Anonymous):
        return node.expression
    return None


def _setting_calls(tree: exp.Expr) -> Iterator[exp.Anonymous]:
    for call in tree.find_all(exp.Anonymous):
        if call.name.lower() == "current_setting":
            yield call


def _setting_name(call: exp.Anonymous) -> str:
    return (_literal(call.expressions[0]) if call.expressions else None) or _text(call)


def _settings(tree: exp.Expr) -> Iterator[str]:
    return map(_setting_name, _setting_calls(tree))


def _raising(tree: exp.Expr) -> Iterator[str]:
    for call in _setting_calls(tree):
        if len(call.expressions) < 2 or not _is_true(call.expressions[1]):
            yield _setting_name(call)


def _bare_casts(tree: exp.Expr) -> Iterator[str]:
    for call in _setting_calls(tree):
        node: exp.Expr | None = call.parent
        while isinstance(node, exp.Paren | exp.Coalesce):
            node = node.parent
        if isinstance(node, exp.Cast) and not text_type(node.to.sql(dialect="postgres").lower()):
            yield _setting_name(call)


def _defaults(node: exp.Expr) -> Iterator[str]:
    for coalesce in node.find_all(exp.Coalesce):
        for fallback in coalesce.expressions:
            value = _literal(fallback)
            if value is not None and value not in _NOBODY:
                yield value


def _tables(tree: exp.Expr) -> Iterator[str]:
    for table in tree.find_all(exp.Table):
        if table.name:
            yield ".".join(part.name for part in table.parts)


def _row_functions(tree: exp.Expr) -> Iterator[str]:
    for dot in tree.find_all(exp.Dot):
        call = _call(dot)
        if call is not None and dot.find_ancestor(exp.Select) is None:
            yield f"{_text(dot.this)}.{call.name}"


def settings_of(expressions: Collection[str]) -> frozenset[str]:
    """The settings that these expressions read, unreadable ones left out."""
    found: set[str] = set()
    for expression in expressions:
        try:
            found.update(_settings(_parse(expression)))
        except Unreadable:
            continue
    return frozenset(found)
