"""What the expression of a policy lets through, as pg_get_expr prints it."""

import itertools

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from tenantry.doctor._policies import Escape, Target, read_expression, text_type
from tenantry.doctor._syntax import Unreadable

TARGET = Target(
    name="doc",
    columns=frozenset({"tenant_id", "id", "owner_id", "published"}),
    keys=frozenset({"tenant_id"}),
)
SETTING = "NULLIF(current_setting('app.tenant_id'::text, true), ''::text)"
EQUAL = f'(tenant_id = ( SELECT ({SETTING})::uuid AS "nullif"))'


def kinds(expression, target=TARGET):
    return {kind for kind, _ in read_expression(expression, target).escapes}


@pytest.mark.parametrize(
    "expression",
    [
        EQUAL,
        f"(({SETTING})::uuid = tenant_id)",
        f"({EQUAL} AND published)",
        f"(published AND (owner_id = auth.uid()) AND {EQUAL})",
        f"(({EQUAL} AND published) OR ({EQUAL} AND (owner_id = auth.uid())))",
        "((tenant_id)::text = current_setting('app.tenant_id'::text, true))",
        "(tenant_id = ANY (auth.tenants()))",
        "(tenant_id IN ( SELECT m.tenant_id FROM public.member m WHERE (m.user_id = auth.uid())))",
        "(EXISTS ( SELECT 1 FROM public.member m WHERE ((m.tenant_id = doc.tenant_id) AND (m.user_id = auth.uid()))))",
        "auth.may_see(tenant_id)",
        f"(tenant_id IS NOT DISTINCT FROM ({SETTING})::uuid)",
        f"(NOT (tenant_id IS DISTINCT FROM ({SETTING})::uuid))",
        f"(NOT (tenant_id <> ({SETTING})::uuid))",
        f"(NOT (published OR (tenant_id <> ({SETTING})::uuid)))",
        f"(NOT (NOT {EQUAL}))",
        f"({EQUAL} IS TRUE)",
        f"COALESCE({EQUAL}, false)",
        f"(tenant_id = ANY (ARRAY[({SETTING})::uuid, NULL::uuid]))",
        f"((tenant_id = 5) AND {EQUAL})",
        "(tenant_id = ANY ((string_to_array(current_setting('app.tenants'::text, true), ','::text))::uuid[]))",
        "((tenant_id)::text = split_part(current_setting('app.who'::text, true), ':'::text, 1))",
        "((tenant_id)::text = (regexp_split_to_array(current_setting('app.who'::text, true), ':'::text))[1])",
        "(lower((tenant_id)::text) = lower(current_setting('app.tenant_id'::text, true)))",
        "(replace((tenant_id)::text, '-'::text, ''::text) = current_setting('app.tenant_id'::text, true))",
        "(tenant_id = (((auth.jwt() -> 'app_metadata'::text) ->> 'org_id'::text))::uuid)",
        "((tenant_id)::text = (current_setting('app.claims'::text, true))::json #>> '{app,org}'::text[])",
        "(tenant_id = CURRENT_USER)",
        "(tenant_id = SESSION_USER)",
        f"(tenant_id = CASE WHEN ({SETTING} IS NULL) THEN NULL::uuid ELSE ({SETTING})::uuid END)",
        "(tenant_id IN ( SELECT (jsonb_array_elements_text((auth.jwt() -> 'orgs'::text)))::uuid AS e))",
        "(tenant_id = ( SELECT max(m.tenant_id) AS max FROM public.member m WHERE (m.user_id = auth.uid())))",
        f"CASE WHEN published THEN {EQUAL} ELSE false END",
        f"CASE WHEN published THEN {EQUAL} ELSE NULL::boolean END",
        f"({EQUAL} OR false)",
        "false",
        "NULL::boolean",
        "(false AND published)",
    ],
)
def test_it_holds(expression):
    assert read_expression(expression, TARGET).escapes == ()


@pytest.mark.parametrize(
    ("expression", "kind", "binds"),
    [
        ("true", Escape.ALWAYS, False),
        ("(NOT false)", Escape.ALWAYS, False),
        ("(1 = 1)", Escape.ALWAYS, False),
        ("(tenant_id = tenant_id)", Escape.ALWAYS, False),
        ("(tenant_id IS NOT NULL)", Escape.ALWAYS, False),
        (f"({EQUAL} OR true)", Escape.ALWAYS, True),
        (f"(({SETTING} IS NULL) OR {EQUAL})", Escape.UNSET, True),
        (f"((current_setting('app.tenant_id'::text, true) = ''::text) OR {EQUAL})", Escape.UNSET, True),
        (f"((auth.uid() IS NULL) OR {EQUAL})", Escape.UNSET, True),
        (f"(tenant_id = COALESCE(({SETTING})::uuid, tenant_id))", Escape.UNSET, False),
        (f"((tenant_id IS NULL) OR {EQUAL})", Escape.SHARED_ROW, True),
        (f"((current_setting('app.is_admin'::text, true) = 'on'::text) OR {EQUAL})", Escape.OTHER, True),
        (f"({EQUAL} OR published)", Escape.OTHER, True),
        (f"(published AND (published OR {EQUAL}))", Escape.OTHER, True),
        (f"CASE WHEN auth.is_admin() THEN true ELSE {EQUAL} END", Escape.OTHER, True),
        (f"(NOT {EQUAL})", Escape.OTHER, False),
        ("(auth.uid() IS NOT NULL)", Escape.OTHER, False),
        ("(owner_id = auth.uid())", Escape.OTHER, False),
        ("(tenant_id = owner_id)", Escape.OTHER, False),
        ("published", Escape.OTHER, False),
        (f"(tenant_id <> ({SETTING})::uuid)", Escape.OTHER, False),
        (f"(NOT (tenant_id IS NOT DISTINCT FROM ({SETTING})::uuid))", Escape.OTHER, False),
        (f"(NOT (published AND (tenant_id <> ({SETTING})::uuid)))", Escape.OTHER, True),
        (f"(tenant_id = ANY (ARRAY[({SETTING})::bigint, (0)::bigint]))", Escape.OTHER, True),
        (f"(tenant_id IN (({SETTING})::bigint, 7))", Escape.OTHER, True),
        ("(tenant_id = 5)", Escape.OTHER, False),
        ("(5 = tenant_id)", Escape.OTHER, False),
        ("(tenant_id = '-5'::bigint)", Escape.OTHER, False),
        ("(tenant_id = ANY ('{1,2}'::bigint[]))", Escape.OTHER, False),
        ("(tenant_id IS NOT DISTINCT FROM 5)", Escape.OTHER, False),
        ("(tenant_id = ( SELECT 5 AS five))", Escape.OTHER, False),
        ("(tenant_id IN ( SELECT 5 FROM public.member m WHERE (m.user_id = auth.uid())))", Escape.OTHER, False),
        (f"(tenant_id IN ( SELECT ({SETTING})::bigint AS n UNION SELECT 5))", Escape.OTHER, True),
        (f"(tenant_id = GREATEST(({SETTING})::bigint, (1)::bigint))", Escape.OTHER, False),
        (f"(tenant_id = abs(({SETTING})::bigint))", Escape.OTHER, False),
        (f"(tenant_id = (({SETTING})::bigint + 1))", Escape.OTHER, False),
        (f"(tenant_id = CASE WHEN published THEN 5 ELSE ({SETTING})::bigint END)", Escape.OTHER, False),
        (f"(tenant_id = CASE WHEN auth.is_admin() THEN 5 ELSE ({SETTING})::bigint END)", Escape.OTHER, True),
        (f"(tenant_id = ALL (ARRAY[({SETTING})::bigint]))", Escape.OTHER, False),
        (f"(GREATEST(tenant_id, (5)::bigint) = ({SETTING})::bigint)", Escape.OTHER, False),
        (f'("left"((tenant_id)::text, 1) = {SETTING})', Escape.OTHER, False),
        ("(EXISTS ( SELECT 1 FROM public.member m WHERE (doc.tenant_id = 5)))", Escape.OTHER, False),
        (f"COALESCE({EQUAL}, true)", Escape.ALWAYS, True),
        ("(tenant_id NOT IN ( SELECT m.tenant_id FROM public.member m))", Escape.OTHER, False),
        ("(EXISTS ( SELECT 1 FROM public.member m WHERE (m.user_id = auth.uid())))", Escape.OTHER, False),
        ("(NOT (EXISTS ( SELECT 1 FROM public.m WHERE (m.tenant_id = doc.tenant_id))))", Escape.OTHER, False),
        (f"(EXISTS ( SELECT 1 FROM public.member m WHERE (m.tenant_id = ({SETTING})::uuid)))", Escape.OTHER, False),
    ],
)
def test_a_way_past_the_tenant(expression, kind, binds):
    reading = read_expression(expression, TARGET)
    assert {found for found, _ in reading.escapes} == {kind}
    assert reading.binds is binds


def test_a_table_without_the_column_is_bound_by_its_foreign_key():
    line = Target("line", frozenset({"id", "doc_id"}), frozenset({"doc_id"}))
    assert kinds("(EXISTS ( SELECT 1 FROM public.doc d WHERE (d.id = line.doc_id)))", line) == set()
    assert kinds("(doc_id IN ( SELECT doc.id FROM public.doc))", line) == set()
    assert kinds("(EXISTS ( SELECT 1 FROM public.doc d WHERE d.published))", line) == {Escape.OTHER}


@pytest.mark.parametrize(
    ("fallback", "defaults"),
    [
        ("'11111111-1111-1111-1111-111111111111'::text", ("11111111-1111-1111-1111-111111111111",)),
        ("'00000000-0000-0000-0000-000000000000'::text", ()),
        ("''::text", ()),
        ("'7'::text", ("7",)),
        ("'-1'::text", ()),
    ],
)
def test_a_default_tenant(fallback, defaults):
    reading = read_expression(f"(tenant_id = (COALESCE({SETTING}, {fallback}))::uuid)", TARGET)
    assert reading.defaults == defaults
    assert reading.binds


@pytest.mark.parametrize(
    ("expression", "raising", "bare"),
    [
        ("(tenant_id = (current_setting('app.t'::text))::uuid)", ("app.t",), ("app.t",)),
        ("(tenant_id = (current_setting('app.t'::text, false))::uuid)", ("app.t",), ("app.t",)),
        ("(tenant_id = (current_setting('app.t'::text, true))::uuid)", (), ("app.t",)),
        ("(tenant_id = (COALESCE(current_setting('app.t'::text, true), '0'::text))::bigint)", (), ("app.t",)),
        ("(tenant_id = (NULLIF(current_setting('app.t'::text, true), ''::text))::uuid)", (), ()),
        ("(tenant_id = current_setting('app.t'::text, true))", (), ()),
        ("(tenant_id = (current_setting('app.t'::text, true))::character varying)", (), ()),
        ("(tenant_id = ((current_setting('app.c'::text, true))::json ->> 'tenant'::text))", (), ("app.c",)),
    ],
)
def test_what_an_unset_setting_does(expression, raising, bare):
    reading = read_expression(expression, TARGET)
    assert reading.raising == raising
    assert reading.bare_casts == bare


def test_a_cast_of_the_column_wraps_it_unless_it_is_text():
    compared = "((tenant_id)::text = current_setting('app.t'::text, true))"
    assert read_expression(compared, TARGET).wrapped
    text = Target("doc", TARGET.columns, TARGET.keys, text_keys=TARGET.keys)
    assert not read_expression(compared, text).wrapped
    assert read_expression("(lower(tenant_id) = current_setting('app.t'::text, true))", text).wrapped


def test_functions_and_tables_are_named():
    reading = read_expression(
        "((tenant_id = auth.tenant()) AND (EXISTS ( SELECT 1 FROM app.member m WHERE (m.id = auth.uid()))))", TARGET
    )
    assert reading.row_functions == ("auth.tenant",)
    assert reading.tables == ("app.member",)


def test_what_cannot_be_parsed_is_said():
    with pytest.raises(Unreadable):
        read_expression("((tenant_id = ", TARGET)


@pytest.mark.parametrize(("type_", "is_text"), [("text", True), ("character varying(36)", True), ("uuid", False)])
def test_types_whose_cast_to_text_changes_nothing(type_, is_text):
    assert text_type(type_) is is_text


# The reading may see a way where there is none ((a AND NOT a)), but must not miss one.
LEAVES = st.sampled_from([EQUAL, "true", "false", "published", "(auth.uid() IS NOT NULL)", "(owner_id = auth.uid())"])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} AND {pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} OR {pair[1]})"),
        st.tuples(LEAVES, inner, inner).map(lambda three: "CASE WHEN {} THEN {} ELSE {} END".format(*three)),
    ),
    max_leaves=8,
)


@given(TREES)
def test_no_way_is_missed(expression):
    if not read_expression(expression, TARGET).escapes:
        assert not opens(expression)


def opens(expression):
    """Whether it can be true for a row of another tenant: the comparison is false then, all else may be true."""
    tree = sqlglot.parse_one(expression, dialect="postgres")
    atoms = sorted({node.sql() for node in tree.walk() if isinstance(node, exp.Is | exp.EQ | exp.Column)})
    return any(
        value(tree, dict(zip(atoms, values, strict=True)))
        for values in itertools.product([False, True], repeat=len(atoms))
    )


def value(node, atoms):
    match node:
        case exp.Paren():
            return value(node.this, atoms)
        case exp.And():
            return value(node.left, atoms) and value(node.right, atoms)
        case exp.Or():
            return value(node.left, atoms) or value(node.right, atoms)
        case exp.Case():
            [branch] = node.args["ifs"]
            return value(branch.args["true"] if value(branch.this, atoms) else node.args["default"], atoms)
        case exp.Boolean():
            return node.this
    text = node.sql()
    return "current_setting" not in text.lower() and atoms[text]
