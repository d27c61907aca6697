"""Reads the expression of a policy: whether it holds a row to the session's tenant, and what is wrong with how.

`sqlglot` parses what pg_get_expr prints. An expression binds where every way for it to be true compares the tenant
column (or, for a table that belongs to tenants through another, its foreign key) with a value of the session and with
nothing else. Each way that does not is an escape of some kind; without an escape the policy holds.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, TypeAlias

from sqlglot import exp

from tenantry.doctor._syntax import Unreadable, asserted, bare, is_never, is_true, literal, name, own_call, parse, text
from tenantry.doctor._values import NOBODY, keeps, of_session, ways_past

_TEXT: Final = ("text", "character varying", "varchar", "character", "char", "name", "citext")


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


def text_type(type_: str) -> bool:
    return type_.partition("(")[0] in _TEXT


def read_expression(expression: str, target: Target) -> Reading:
    """Raises `Unreadable`."""
    tree = parse(expression)
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
        node = bare(node)
        while (positive := asserted(node)) is not None:
            node = bare(positive)
        match node:
            case exp.And():
                return self._both(node)
            case exp.Or():
                return self._either([node.left, node.right])
            case exp.Coalesce():
                return self._either([node.this, *node.expressions])
            case exp.Case():
                return self._case(node)
        return self._leaf(node)

    def _leaf(self, node: exp.Expr) -> Ways:
        if is_never(node):
            return False, []
        if self._binds(node):
            return True, []
        return self._comparison(node) or (False, [(self._escape(node), text(node))])

    def _either(self, nodes: Collection[exp.Expr]) -> Ways:
        found = [self.ways(node) for node in nodes]
        return any(binds for binds, _ in found), [escape for _, escapes in found for escape in escapes]

    def _both(self, node: exp.And) -> Ways:
        sides = self.ways(node.left), self.ways(node.right)
        for binds, escapes in sides:
            if not escapes:
                return binds, []  # what one side closes stays closed
        binding = [side for side in sides if side[0]]
        return min(binding, key=lambda side: len(side[1])) if binding else (False, [(Escape.OTHER, text(node))])

    def _case(self, node: exp.Case) -> Ways:
        binds = False
        escapes: list[tuple[Escape, str]] = []
        for branch in node.args["ifs"]:
            if is_true(branch.args["true"]):
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
        if isinstance(node, exp.Exists):
            return self._mentions_key(node.this)
        if (function := own_call(node)) is not None:
            # A function of the database's own that is given the tenant is taken at its word.
            return any(self._is_key(argument) for argument in function.expressions)
        return False

    def _comparison(self, node: exp.Expr) -> Ways | None:
        """What a comparison of the tenant column lets through; None where `node` is none."""
        match node:
            case exp.EQ() | exp.NullSafeEQ():
                for one, other in ((node.left, node.right), (node.right, node.left)):
                    if self._is_key(one) and not self.row_columns(other):
                        self._look_at(one, other)
                        return self._compared(one, [other])
            case exp.In() if self._is_key(node.this):
                query = node.args.get("query")
                return self._compared(node.this, node.expressions if query is None else [query])
        return None

    def _look_at(self, key: exp.Expr, other: exp.Expr) -> None:
        column = bare(key)
        if not isinstance(column, exp.Column) and not (
            isinstance(column, exp.Cast) and name(bare(column.this)) in self._target.text_keys
        ):
            self.wrapped = True
        self.defaults += _defaults(other)

    def _compared(self, key: exp.Expr, others: Collection[exp.Expr]) -> Ways:
        binds, escapes = False, []
        for other in others:
            own, past = ways_past(key, other)
            binds |= own
            escapes += [(Escape.OTHER, way) for way in past]
        return binds, escapes

    def _is_key(self, node: exp.Expr) -> bool:
        """The tenant column, or what tells tenants apart as well as it does."""
        node = bare(node)
        if isinstance(node, exp.Column):
            return name(node) in self._target.keys and node.table in {"", self._target.name}
        if isinstance(node, exp.Tuple):
            return any(map(self._is_key, node.expressions))
        kept = keeps(node)
        return kept is not None and self._is_key(kept)

    def row_columns(self, node: exp.Expr) -> frozenset[str]:
        """The columns of the row that is looked at; within a sub-select they are named with their table."""
        return frozenset(
            name(column)
            for column in node.find_all(exp.Column)
            if name(column) in self._target.columns
            and column.table in ({self._target.name} if column.find_ancestor(exp.Select) else {"", self._target.name})
        )

    def _mentions_key(self, select: exp.Expr) -> bool:
        """Whether the sub-select is tied to the tenant, or the parent, of the row that is looked at."""
        for column in select.find_all(exp.Column):
            if name(column) in self._target.keys and column.table == self._target.name:
                comparison = column.find_ancestor(exp.EQ, exp.NullSafeEQ, exp.In)
                if comparison is not None and any(map(self._is_elsewhere, comparison.walk())):
                    return True
        return False

    def _is_elsewhere(self, node: exp.Expr) -> bool:
        if isinstance(node, exp.Column):
            return node.table != self._target.name
        return of_session(node)

    def _escape(self, node: exp.Expr) -> Escape:
        match node:
            case exp.Is(expression=exp.Null()):
                negated = bool(node.args.get("negate"))
                if self._is_key(node.this):
                    return Escape.ALWAYS if negated else Escape.SHARED_ROW
                return Escape.OTHER if negated or self.row_columns(node.this) else Escape.UNSET
            case exp.EQ():
                return self._escape_of_equality(bare(node.left), bare(node.right))
        return Escape.ALWAYS if is_true(node) else Escape.OTHER

    def _escape_of_equality(self, left: exp.Expr, right: exp.Expr) -> Escape:
        sides = (left, right)
        if left == right:
            return Escape.ALWAYS
        if any(literal(side) == "" for side in sides) and not any(map(self.row_columns, sides)):
            return Escape.UNSET  # current_setting(...) = ''
        if any(map(self._is_key, sides)) and any(
            self._is_key(column)
            for side in sides
            for fallback in side.find_all(exp.Coalesce)
            for column in fallback.find_all(exp.Column)
        ):
            return Escape.UNSET  # tenant_id = COALESCE(setting, tenant_id)
        return Escape.OTHER


def _setting_calls(tree: exp.Expr) -> Iterator[exp.Anonymous]:
    for call in tree.find_all(exp.Anonymous):
        if call.name.lower() == "current_setting":
            yield call


def _setting_name(call: exp.Anonymous) -> str:
    return (literal(call.expressions[0]) if call.expressions else None) or text(call)


def _settings(tree: exp.Expr) -> Iterator[str]:
    return map(_setting_name, _setting_calls(tree))


def _raising(tree: exp.Expr) -> Iterator[str]:
    for call in _setting_calls(tree):
        if len(call.expressions) < 2 or not is_true(call.expressions[1]):
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
            value = literal(fallback)
            if value is not None and value not in NOBODY:
                yield value


def _tables(tree: exp.Expr) -> Iterator[str]:
    for table in tree.find_all(exp.Table):
        if table.name:
            yield ".".join(part.name for part in table.parts)


def _row_functions(tree: exp.Expr) -> Iterator[str]:
    for dot in tree.find_all(exp.Dot):
        call = own_call(dot)
        if call is not None and dot.find_ancestor(exp.Select) is None:
            yield f"{text(dot.this)}.{call.name}"


def settings_of(expressions: Collection[str]) -> frozenset[str]:
    """The settings that these expressions read, unreadable ones left out."""
    found: set[str] = set()
    for expression in expressions:
        try:
            found.update(_settings(parse(expression)))
        except Unreadable:
            continue
    return frozenset(found)
