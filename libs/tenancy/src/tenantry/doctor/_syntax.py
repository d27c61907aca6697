"""The expressions that pg_get_expr prints, as `sqlglot` has them."""

from functools import lru_cache

from sqlglot import ErrorLevel, exp, parse_one
from sqlglot.errors import SqlglotError


class Unreadable(Exception):
    """The expression was not understood."""


@lru_cache(maxsize=4096)
def parse(expression: str) -> exp.Expr:
    """Raises `Unreadable`."""
    try:
        return parse_one(expression, dialect="postgres", error_level=ErrorLevel.RAISE)
    except (SqlglotError, RecursionError) as error:
        raise Unreadable(str(error)) from None


def bare(node: exp.Expr) -> exp.Expr:
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def name(node: exp.Expr) -> str:
    # pg_get_expr quotes whatever is not plain lower case, so that the name is the column's own.
    return node.name


def text(node: exp.Expr) -> str:
    return node.sql(dialect="postgres")


def is_true(node: exp.Expr) -> bool:
    node = bare(node)
    if isinstance(node, exp.Not):
        inner = bare(node.this)
        return isinstance(inner, exp.Boolean) and not inner.this
    return isinstance(node, exp.Boolean) and bool(node.this)


def is_never(node: exp.Expr) -> bool:
    while isinstance(node, exp.Paren | exp.Cast):
        node = node.this
    return isinstance(node, exp.Null) or (isinstance(node, exp.Boolean) and not node.this)


def literal(node: exp.Expr) -> str | None:
    node = bare(node)
    while isinstance(node, exp.Cast):
        node = bare(node.this)
    if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal):
        return f"-{node.this.this}"
    return str(node.this) if isinstance(node, exp.Literal) else None


def own_call(node: exp.Expr) -> exp.Anonymous | None:
    """The call of a function that is not PostgreSQL's own: with pg_catalog as the path it is printed with a schema."""
    if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Anonymous):
        return node.expression
    return None


def asserted(node: exp.Expr) -> exp.Expr | None:
    """`node` without the NOT, or the IS TRUE, before or behind it: what is true where it is; None where it has none."""
    match node:
        case exp.Is(expression=exp.Boolean(this=True)) if not node.args.get("negate"):
            return bare(node.this)
        case exp.Not():
            return _denied(bare(node.this))
    return None


def _denied(node: exp.Expr) -> exp.Expr | None:
    match node:
        case exp.Not():
            return bare(node.this)
        case exp.NullSafeNEQ():
            return exp.NullSafeEQ(this=node.left.copy(), expression=node.right.copy())
        case exp.NEQ():
            return exp.EQ(this=node.left.copy(), expression=node.right.copy())
        case exp.Or():
            return exp.And(this=exp.Not(this=node.left.copy()), expression=exp.Not(this=node.right.copy()))
        case exp.And():
            return exp.Or(this=exp.Not(this=node.left.copy()), expression=exp.Not(this=node.right.copy()))
    return None
