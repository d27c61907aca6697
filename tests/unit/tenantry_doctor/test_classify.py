"""Which tables hold rows of tenants, from inventories made up here."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.doctor._classify import TableClass, classify
from tenantry.doctor._inventory import Column, ForeignKey, Inventory, Relation, Shape


class Database:
    """Tables by name, with columns (a ``?`` says that it may be NULL) and foreign keys as ``column -> table``."""

    def __init__(self):
        self._ids = count(1)
        self._tables = {}

    def table(self, name, *columns, schema="public", parent=None, **keys):
        id_ = next(self._ids)
        self._tables[name] = Relation(
            id=id_,
            schema=schema,
            name=name,
            kind="r",
            owner=10,
            secured=False,
            forced=False,
            parent=self._tables[parent].id if parent else None,
            partition=parent is not None,
            rows=0,
            invoker=False,
            grants={},
            columns=tuple(Column(column.rstrip("?"), "uuid", not column.endswith("?"), False) for column in columns),
            foreign_keys=tuple(
                ForeignKey(column, self._tables[target].id if target != name else id_, (column,), ("id",), "a")
                for column, target in keys.items()
            ),
        )
        return self

    def classes(self, column=None, shared=(), shapes=()):
        inventory = Inventory("18", "d", 10, {}, relations={t.id: t for t in self._tables.values()}, shapes=shapes)
        found = classify(inventory, column, shared)
        return found, {item.table.name: item for item in found.tables.values()}


def kinds(items):
    return {name: item.kind.value for name, item in items.items()}


def test_the_shortest_path_of_foreign_keys_is_the_proof():
    database = (
        Database()
        .table("tenants", "id")
        .table("orders", "id", "tenant_id", tenant_id="tenants")
        .table("lines", "id", "order_id", order_id="orders")
        .table("notes", "id", "line_id", "order_id", line_id="lines", order_id="orders")
    )
    classes, items = database.classes()
    assert classes.column == "tenant_id"
    assert kinds(items) == {"tenants": "shared", "orders": "tenant", "lines": "tenant", "notes": "tenant"}
    assert items["notes"].proof == "public.notes.order_id -> public.orders"
    assert items["lines"].column is None


def test_a_key_that_may_be_null_proves_nothing():
    _, items = (
        Database().table("orders", "id", "tenant_id").table("lines", "id", "order_id?", order_id="orders").classes()
    )
    assert items["lines"].kind is TableClass.UNCLEAR
    assert "may be NULL" in items["lines"].proof


def test_what_tenant_rows_point_at_is_shared():
    _, items = (
        Database()
        .table("countries", "id")
        .table("colours", "id")
        .table("orders", "id", "tenant_id", "country_id", country_id="countries")
        .classes()
    )
    assert kinds(items) == {"countries": "shared", "colours": "unclear", "orders": "tenant"}


def test_circles_of_foreign_keys_end():
    _, items = (
        Database()
        .table("nodes", "id", "parent_id", parent_id="nodes")
        .table("orders", "id", "tenant_id", "self_id", self_id="orders")
        .table("edges", "id", "order_id", "node_id", order_id="orders", node_id="nodes")
        .classes()
    )
    assert kinds(items) == {"nodes": "shared", "orders": "tenant", "edges": "tenant"}


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ([("orders", "org_id"), ("users", "org_id"), ("logs", "account_id")], "org_id"),
        ([("orders", "customer_id"), ("items", "customer_id"), ("logs", "tenant_id")], "customer_id"),
        ([("orders", "customer_id"), ("logs", "tenant_id")], "tenant_id"),
        ([("orders", "user_id")], None),
        ([], None),
    ],
)
def test_the_column_is_the_one_that_most_tables_have(tables, expected):
    database = Database()
    for name, column in tables:
        database.table(name, "id", column)
    assert database.classes()[0].column == expected


def test_a_customer_of_an_org_is_no_tenant():
    database = Database().table("orgs", "id").table("customers", "id", "org_id", org_id="orgs")
    for n in range(5):
        database.table(f"orders_{n}", "id", "customer_id", customer_id="customers")
    classes, items = database.classes()
    assert classes.column == "org_id"
    assert items["orders_3"].proof == "public.orders_3.customer_id -> public.customers"


def test_what_points_twice_at_the_tenants_is_unclear():
    _, items = (
        Database()
        .table("orgs", "id")
        .table("users", "id", "org_id", org_id="orgs")
        .table("deals", "id", "seller", "buyer", seller="orgs", buyer="orgs")
        .table("sites", "id", "owner", owner="orgs")
        .classes()
    )
    assert items["deals"].kind is TableClass.UNCLEAR
    assert (items["sites"].kind, items["sites"].column) == (TableClass.TENANT, "owner")


def test_a_partition_is_as_its_parent():
    _, items = (
        Database().table("events", "id", "tenant_id").table("events_1", "id", "tenant_id", parent="events").classes()
    )
    assert items["events_1"].kind is TableClass.TENANT
    assert items["events_1"].proof == "part of public.events"


def test_what_somebody_knows_comes_first():
    _, items = Database().table("domains", "id", "tenant_id").classes(shared=("public.dom*",))
    assert items["domains"].kind is TableClass.SHARED


def test_tables_of_like_schemas_are_tenants_by_place():
    shape = Shape(("a", "b", "c"), ("a",), ())
    _, items = (
        Database()
        .table("orders", "id", "customer_id", schema="a")
        .table("alembic_version", "id", schema="a")
        .classes(shapes=(shape,))
    )
    assert kinds(items) == {"orders": "tenant", "alembic_version": "shared"}
    assert items["orders"].by_schema


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 7), st.booleans()), min_size=1, max_size=8))
def test_every_table_has_a_class_and_a_path_leads_to_the_column(shape):
    """Tables that point at an earlier one or themselves, with or without the column, by a key that may be NULL."""
    database = Database()
    for n, (own, points, target, optional) in enumerate(shape):
        columns = ["id", *(["tenant_id"] if own else []), *(["ref?" if optional else "ref"] if points else [])]
        database.table(f"t{n}", *columns, **({"ref": f"t{min(target, n)}"} if points else {}))
    classes, items = database.classes(column="tenant_id")
    assert len(items) == len(shape)
    for item in items.values():
        if item.path:
            last = classes.tables[item.path[-1][1].target]
            assert last.column == "tenant_id"
            assert all(table.column("ref").not_null for table, _ in item.path)
        elif item.kind is TableClass.TENANT:
            assert item.table.column("tenant_id")
