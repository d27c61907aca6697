"""What the tenant column is compared with: values of the session, and those that are not."""

from collections.abc import Iterator
from typing import Final

from sqlglot import exp

from tenantry.doctor._syntax import bare, literal, name, own_call, text

# Values that no tenant has: a fallback to one of them closes.
NOBODY: Final = frozenset({"", "0", "-1", "00000000-0000-0000-0000-000000000000"})

# Each gives its first argument, or a part of it, and nothing that is not in it.
_PARTS: Final = (
    exp.Alias,
    exp.Any,
    exp.Bracket,
    exp.Cast,
    exp.JSONBExtract,
    exp.JSONBExtractScalar,
    exp.JSONExtract,
    exp.JSONExtractScalar,
    exp.Lower,
    exp.Nullif,
    exp.Paren,
    exp.SplitPart,
    exp.StringToArray,
    exp.Subquery,
    exp.Substring,
    exp.Trim,
    exp.Unnest,
    exp.Upper,
)
_NAMED_PARTS: Final = frozenset(
    {
        "json_array_elements_text",
        "json_extract_path_text",
        "jsonb_array_elements_text",
        "jsonb_extract_path_text",
        "ltrim",
        "regexp_split_to_array",
        "regexp_split_to_table",
        "rtrim",
        "string_to_table",
    }
)
_OF_THE_SESSION: Final = (
    exp.CurrentCatalog,
    exp.CurrentDatabase,
    exp.CurrentRole,
    exp.CurrentSchema,
    exp.CurrentUser,
    exp.SessionUser,
)
# Of the tenant column: what one of them gives is given for no other tenant, but for the case of letters.
_KEEPING: Final = (exp.Cast, exp.Lower, exp.MD5, exp.Replace, exp.Trim, exp.Upper)


def of_session(node: exp.Expr) -> bool:
    """Whether it is the session's own, or what another table has for it."""
    if isinstance(node, exp.Anonymous):
        return name(node).lower() == "current_setting"
    # A function of the database's own is taken at its word.
    return isinstance(node, (*_OF_THE_SESSION, exp.Column, exp.Star)) or own_call(node) is not None


def sources(node: exp.Expr) -> Iterator[exp.Expr]:
    """The expressions that the value of `node` can come from; one that is not seen through is its own source.

    Without NULL, which equals nothing, and without what stands in for it and no tenant has. A literal that COALESCE
    falls back to is left to who looks for default tenants.
    """
    within = _within(node)
    if within is None:
        yield node
        return
    for each in within:
        yield from sources(each)


def _within(node: exp.Expr) -> list[exp.Expr] | None:
    """One level down; None where it is a source."""
    within: list[exp.Expr] | None = None
    match node:
        case exp.Null():
            within = []
        case exp.Coalesce():
            within = [node.this, *(fallback for fallback in node.expressions if literal(fallback) is None)]
        case exp.Array() | exp.Tuple():
            within = node.expressions
        case exp.Case():
            results = [*(branch.args["true"] for branch in node.args["ifs"]), node.args.get("default")]
            within = [each for each in results if each is not None and literal(each) not in NOBODY]
        case exp.SetOperation():
            within = [node.left, node.right]
        case exp.Select():
            within = _selected(node)
        case exp.Anonymous() if name(node).lower() in _NAMED_PARTS:
            within = node.expressions[:1]
        case _ if isinstance(node, _PARTS):
            within = [part for part in (node.this, *node.expressions) if isinstance(part, exp.Expr)][:1]
    return within


def _selected(select: exp.Select) -> list[exp.Expr]:
    if select.args.get("from_") is None:
        return select.expressions
    return [each.find(exp.Column, exp.Star) or each for each in select.expressions]


def keeps(node: exp.Expr) -> exp.Expr | None:
    """What `node` tells apart as well as it does itself; None where it may give the same for two."""
    return bare(node.this) if isinstance(node, _KEEPING) else None


def ways_past(key: exp.Expr, other: exp.Expr) -> tuple[bool, list[str]]:
    """Whether `key` is compared with a value of the session in `other`, and what else makes them equal."""
    own, strangers = False, []
    for source in sources(other):
        if of_session(source):
            own = True
        else:
            strangers.append(f"{text(key)} = {text(source)}")
    return own, strangers
