"""The statements that show a finding: SELECTs on the catalogues, which anybody may run and which lock nothing.

They name objects by text and not by oid, so that they mean the same on a copy of the database, and each has the fault
itself in its WHERE: once it is put right no row comes back.
"""

# ruff: noqa: S608 - names are quoted as literals; the statements are for people, and for tests, to run

from tenantry.database._names import literal, quote
from tenantry.doctor._inventory import PUBLIC, Inventory, Relation

RELATION = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"


def is_relation(relation: Relation) -> str:
    """The condition that picks `relation` among `RELATION`."""
    return f"n.nspname = {literal(relation.schema)} AND c.relname = {literal(relation.name)}"


def relation_where(relation: Relation, columns: str, condition: str) -> str:
    return f"SELECT n.nspname, c.relname, {columns} FROM {RELATION} WHERE {is_relation(relation)} AND {condition}"


def column_where(relation: Relation, column: str, columns: str, condition: str) -> str:
    return (
        f"SELECT n.nspname, c.relname, a.attname, {columns} FROM {RELATION} "
        f"JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = {literal(column)} "
        f"WHERE {is_relation(relation)} AND {condition}"
    )


def no_column(relation: Relation, column: str) -> str:
    return relation_where(
        relation,
        f"{literal(column)} AS missing",
        f"NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = {literal(column)} "
        "AND NOT a.attisdropped)",
    )


def policy(relation: Relation, name: str) -> str:
    return (
        "SELECT schemaname, tablename, policyname, permissive, roles, cmd, qual, with_check FROM pg_policies "
        f"WHERE schemaname = {literal(relation.schema)} AND tablename = {literal(relation.name)} "
        f"AND policyname = {literal(name)}"
    )


def constraint(relation: Relation, name: str) -> str:
    return (
        "SELECT n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid) AS definition "
        f"FROM {RELATION} JOIN pg_constraint k ON k.conrelid = c.oid "
        f"WHERE {is_relation(relation)} AND k.conname = {literal(name)}"
    )


def index(relation: Relation, name: str) -> str:
    return (
        "SELECT schemaname, tablename, indexname, indexdef FROM pg_indexes "
        f"WHERE schemaname = {literal(relation.schema)} AND indexname = {literal(name)}"
    )


def role_where(name: str, columns: str, condition: str) -> str:
    return f"SELECT rolname, {columns} FROM pg_roles WHERE rolname = {literal(name)} AND {condition}"


def grants(inventory: Inventory, relation: Relation, grantee: int, privileges: list[str]) -> str:
    return (
        f"SELECT n.nspname, c.relname, g.grantee, g.privilege_type "
        f"FROM {RELATION}, LATERAL (SELECT * FROM aclexplode(c.relacl) UNION ALL "
        "SELECT x.* FROM pg_attribute a, aclexplode(a.attacl) AS x WHERE a.attrelid = c.oid) AS g "
        f"WHERE {is_relation(relation)} AND g.privilege_type IN ({', '.join(map(literal, privileges))}) "
        f"AND {is_grantee(inventory, grantee)}"
    )


def is_grantee(inventory: Inventory, grantee: int) -> str:
    if grantee == PUBLIC:
        return "g.grantee = 0"
    return f"g.grantee = (SELECT oid FROM pg_roles WHERE rolname = {literal(inventory.role_name(grantee))})"


def grantee_name(inventory: Inventory, grantee: int) -> str:
    """For a GRANT or a REVOKE."""
    return "PUBLIC" if grantee == PUBLIC else quote(inventory.role_name(grantee))


def qualified(relation: Relation) -> str:
    return f"{quote(relation.schema)}.{quote(relation.name)}"
