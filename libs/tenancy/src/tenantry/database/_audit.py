"""Compares a database with the data catalogue and with the rules that keep tenants apart.

Every check is one query whose rows are findings. The policies are compared with what the generator makes today, as the
server itself prints it: on a temporary table that is rolled back.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry.database._names import RoleNames, quote
from tenantry.database._policies import tenant_table
from tenantry.database._tables import SharedTable, SystemTable, TenantTable
from tenantry.database._tenant_column import TENANT_ID

_TENANT_SCHEMA: Final = "(n.nspname = 'pool' OR n.nspname ~ '^[tw]_[0-9a-f]{32}$')"
_OUR_SCHEMA: Final = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_PREFIX: Final = f"""
    WITH ours AS (
        SELECT c.*, n.nspname, format('%I.%I', n.nspname, c.relname) AS name
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {_OUR_SCHEMA}
    ), catalogue AS (
        SELECT * FROM unnest(CAST(:tables AS text[]), CAST(:columns AS text[]), CAST(:types AS text[]),
                             CAST(:immutables AS boolean[]), CAST(:schemas AS text[]))
                      AS t (relname, tenant_column, tenant_type, immutable, schema)
    ), tenant_tables AS (
        SELECT o.*, t.tenant_column, t.tenant_type, t.immutable, t.schema, a.attnum AS tenant_attnum
          FROM ours o JOIN catalogue t USING (relname) JOIN pg_namespace n ON n.oid = o.relnamespace
          LEFT JOIN pg_attribute a ON a.attrelid = o.oid AND a.attname = t.tenant_column AND NOT a.attisdropped
         WHERE o.relkind IN ('r', 'p') AND NOT o.relispartition
           AND CASE WHEN t.schema IS NULL THEN {_TENANT_SCHEMA} ELSE n.nspname = t.schema END
    )
"""

# ruff: noqa: S608 - the queries are put together from constants of this module
_CLASSIFICATION: Final = (
    # The catalogue is complete: what it does not know no purge deletes and no export has.
    """
    SELECT name || ' is not in the data catalogue' FROM ours
     WHERE relkind IN ('r', 'p', 'f') AND NOT relispartition AND relname <> 'alembic_version'
       AND oid NOT IN (SELECT oid FROM tenant_tables)
       AND NOT nspname || '.' || relname = ANY (CAST(:others AS text[]))
    """,
    """
    SELECT format('%s: %I names tenants, and the data catalogue does not say so', name, a.attname)
      FROM ours JOIN pg_attribute a ON a.attrelid = ours.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE nspname || '.' || relname = ANY (CAST(:undeclared AS text[]))
       AND a.attname = ANY (CAST(:tenant_columns AS text[]))
    """,
    """
    SELECT format('%s: %I references tenants, and the data catalogue does not say so', o.name, a.attname)
      FROM ours o JOIN pg_constraint k ON k.conrelid = o.oid AND k.contype = 'f' JOIN ours r ON r.oid = k.confrelid
      JOIN unnest(CAST(:declared AS text[]), CAST(:declared_columns AS text[])) AS d (name, column_name)
        ON d.name = r.nspname || '.' || r.relname
      JOIN pg_attribute p ON p.attrelid = r.oid AND p.attname = d.column_name AND NOT p.attisdropped
     CROSS JOIN LATERAL unnest(k.conkey, k.confkey) AS pair (child, parent)
      JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum = pair.child
     WHERE o.nspname || '.' || o.relname = ANY (CAST(:undeclared AS text[])) AND pair.parent = p.attnum
    """,
)
_CHECKS: Final = (
    *_CLASSIFICATION,
    f"""
    SELECT format('%I.%I is in the data catalogue but does not exist', n.nspname, t.relname)
      FROM pg_namespace n, catalogue t
     WHERE CASE WHEN t.schema IS NULL THEN {_TENANT_SCHEMA} ELSE n.nspname = t.schema END
       AND NOT EXISTS (SELECT FROM tenant_tables o
                                             WHERE o.nspname = n.nspname AND o.relname = t.relname)
    """,
    """
    SELECT other || ' is in the data catalogue but does not exist' FROM unnest(CAST(:others AS text[])) AS other
     WHERE NOT EXISTS (SELECT FROM ours WHERE nspname || '.' || relname = other)
    """,
    # Row level security holds for everybody, the owner included.
    "SELECT name || ' does not ENABLE row level security' FROM tenant_tables WHERE NOT relrowsecurity",
    "SELECT name || ' does not FORCE row level security' FROM tenant_tables WHERE NOT relforcerowsecurity",
    # Keys: neither uniqueness nor a foreign key asks row level security.
    "SELECT name || ' has no column ' || tenant_column FROM tenant_tables WHERE tenant_attnum IS NULL",
    """
    SELECT format('%s: %I is nullable', name, tenant_column) FROM tenant_tables
      JOIN pg_attribute a ON a.attrelid = tenant_tables.oid AND a.attnum = tenant_attnum WHERE NOT a.attnotnull
    """,
    """
    SELECT name || ' has no primary key that starts with ' || tenant_column FROM tenant_tables t
     WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = t.oid AND k.contype = 'p'
                          AND k.conkey[1] = tenant_attnum)
    """,
    """
    SELECT format('%s: unique index %I leaves out %I', name, i.indexrelid::regclass, tenant_column)
      FROM tenant_tables t JOIN pg_index i ON i.indrelid = t.oid
     WHERE i.indisunique AND NOT tenant_attnum = ANY (i.indkey::smallint[])
    """,
    """
    SELECT format('%s: exclusion constraint %I leaves out %I', name, k.conname, tenant_column)
      FROM tenant_tables t JOIN pg_constraint k ON k.conrelid = t.oid
     WHERE k.contype = 'x' AND NOT tenant_attnum = ANY (k.conkey)
    """,
    """
    SELECT format('%s: foreign key %I does not pair the tenant columns', t.name, k.conname)
      FROM tenant_tables t JOIN pg_constraint k ON k.conrelid = t.oid JOIN tenant_tables r ON r.oid = k.confrelid
     WHERE k.contype = 'f' AND NOT EXISTS (SELECT FROM unnest(k.conkey, k.confkey) AS pair (child, parent)
                                            WHERE child = t.tenant_attnum AND parent = r.tenant_attnum)
    """,
    """
    SELECT format('%s: foreign key %I points at rows of tenants', o.name, k.conname)
      FROM ours o JOIN pg_constraint k ON k.conrelid = o.oid JOIN tenant_tables r ON r.oid = k.confrelid
     WHERE k.contype = 'f' AND NOT o.relispartition AND o.oid NOT IN (SELECT oid FROM tenant_tables)
    """,
    # Ways around a table's policies.
    """
    SELECT name || ' is a view without security_invoker' FROM ours
     WHERE relkind = 'v' AND NOT COALESCE(reloptions, '{}') && ARRAY['security_invoker=true', 'security_invoker=on']
    """,
    """
    SELECT DISTINCT o.name || ' is a materialized view of rows of tenants'
      FROM ours o JOIN pg_rewrite w ON w.ev_class = o.oid
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
      JOIN tenant_tables t ON t.oid = d.refobjid
     WHERE o.relkind = 'm'
    """,
    """
    SELECT DISTINCT format('%s is a partition granted to %s', name, g.grantee::regrole)
      FROM ours, aclexplode(relacl) AS g WHERE relispartition AND relkind IN ('r', 'p') AND g.grantee <> relowner
    """,
    """
    SELECT format('%s is granted to %s: %s', name,
                  CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END, g.privilege_type)
      FROM ours, aclexplode(relacl) AS g
     WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND g.grantee <> relowner
       AND (g.grantee = 0 OR g.privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN'))
    """,
    """
    SELECT format('%s is immutable but %s may %s', name, g.grantee::regrole, g.privilege_type)
      FROM tenant_tables, aclexplode(relacl) AS g
     WHERE immutable AND g.grantee <> relowner AND g.privilege_type IN ('UPDATE', 'DELETE')
    """,
    """
    SELECT format('%s is immutable but %s may change column %I', name, g.grantee::regrole, a.attname)
      FROM tenant_tables t JOIN pg_attribute a ON a.attrelid = t.oid, aclexplode(a.attacl) AS g
     WHERE immutable AND g.grantee <> relowner AND g.privilege_type = 'UPDATE'
    """,
    """
    SELECT format('%s is shared by all tenants but %s may %s', name, g.grantee::regrole, g.privilege_type)
      FROM ours, aclexplode(relacl) AS g
     WHERE nspname || '.' || relname = ANY (CAST(:shared AS text[])) AND g.grantee = CAST(:service AS text)::regrole
       AND g.privilege_type <> 'SELECT'
    """,
    """
    SELECT name || ' is owned by ' || relowner::regrole FROM ours
     WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relowner::regrole::text <> CAST(:owner AS text)
    """,
    f"""
    SELECT format('%s is a SECURITY DEFINER function without a search_path of its own', p.oid::regprocedure)
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE {_OUR_SCHEMA} AND p.prosecdef
       AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS setting WHERE setting LIKE 'search_path=%')
    """,
    # What would close the way to other engines, to moves, or to tables that differ by schema.
    """
    SELECT format('%s has trigger %I', name, g.tgname) FROM tenant_tables t JOIN pg_trigger g ON g.tgrelid = t.oid
     WHERE NOT g.tgisinternal
    """,
    """
    SELECT format('%s: %I is an identity column', name, a.attname)
      FROM tenant_tables t JOIN pg_attribute a ON a.attrelid = t.oid WHERE a.attidentity <> ''
    """,
    """
    SELECT format('%s: %I has a type of its own, %s', name, a.attname, format_type(a.atttypid, NULL))
      FROM tenant_tables t JOIN pg_attribute a ON a.attrelid = t.oid JOIN pg_type y ON y.oid = a.atttypid
     WHERE a.attnum > 0 AND NOT a.attisdropped AND y.typtype IN ('e', 'd', 'c')
    """,
    """
    SELECT format('%s: foreign key %I sets columns on delete', name, k.conname)
      FROM tenant_tables t JOIN pg_constraint k ON k.conrelid = t.oid
     WHERE k.contype = 'f' AND k.confdeltype IN ('n', 'd')
    """,
)

_TENANT_TABLES: Final = f"{_PREFIX} SELECT nspname, relname, schema FROM tenant_tables"
_ACTUAL_POLICIES: Final = """
    SELECT schemaname, tablename, policyname, ROW (permissive, roles, cmd, qual, with_check)::text FROM pg_policies
"""
_REFERENCE: Final = "tenantry_audit_reference"
_REFERENCE_POLICIES: Final = f"""
    SELECT policyname, ROW (permissive, roles, cmd, qual, with_check)::text AS definition
      FROM pg_policies WHERE tablename = '{_REFERENCE}' AND schemaname LIKE 'pg_temp%'
"""


async def find_faults(
    connection: AsyncConnection,
    roles: RoleNames,
    tenant_tables: Iterable[TenantTable],
    others: Mapping[str, SystemTable | SharedTable],
) -> list[str]:
    """Findings, sorted; empty if all is well."""
    tables = list(tenant_tables)
    parameters = _parameters(roles, tables, others)
    found = await _ask(connection, _CHECKS, parameters)
    found.update(await _policy_faults(connection, roles, tables, parameters))
    return sorted(found)


async def find_unclassified(
    connection: AsyncConnection,
    roles: RoleNames,
    tenant_tables: Iterable[TenantTable],
    others: Mapping[str, SystemTable | SharedTable],
) -> list[str]:
    """Tables, and columns that name tenants, of which the catalogue says nothing; sorted. It reads and does no more."""
    return sorted(await _ask(connection, _CLASSIFICATION, _parameters(roles, list(tenant_tables), others)))


async def _ask(connection: AsyncConnection, checks: Iterable[str], parameters: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    for check in checks:
        found.update(await connection.scalars(text(_PREFIX + check), dict(parameters)))
    return found


def _parameters(
    roles: RoleNames, tables: Collection[TenantTable], others: Mapping[str, SystemTable | SharedTable]
) -> dict[str, Any]:
    declared = {
        name: table.tenant_column
        for name, table in others.items()
        if isinstance(table, SystemTable) and table.tenant_column is not None
    }
    return {
        "tables": [table.name for table in tables],
        "columns": [table.column.name for table in tables],
        "types": [table.column.type for table in tables],
        "immutables": [table.immutable for table in tables],
        "schemas": [table.schema for table in tables],
        "others": sorted(others),
        "shared": sorted(name for name, table in others.items() if isinstance(table, SharedTable)),
        "service": quote(roles.service),
        "owner": roles.owner,
        "tenant_columns": sorted({TENANT_ID.name, *(table.column.name for table in tables)}),
        "undeclared": sorted(others.keys() - declared.keys()),
        "declared": list(declared),
        "declared_columns": list(declared.values()),
    }


async def _policy_faults(
    connection: AsyncConnection, roles: RoleNames, tables: Collection[TenantTable], parameters: dict[str, Any]
) -> set[str]:
    """Policies that are missing, changed or added. Permissive ones are joined by OR: one more opens the table."""
    actual: dict[tuple[str, str], dict[str, str]] = {}
    for schema, table, policy, definition in await connection.execute(text(_ACTUAL_POLICIES)):
        actual.setdefault((schema, table), {})[policy] = definition
    found: set[str] = set()
    places = (await connection.execute(text(_TENANT_TABLES), parameters)).all()
    for table in tables:
        wanted = await _generated_policies(connection, roles, table)
        for schema, name, fixed in places:
            if (name, fixed) != (table.name, table.schema):
                continue
            present = actual.get((schema, name), {})
            for policy in wanted.keys() | present.keys():
                if policy not in present:
                    found.add(f"{schema}.{name} has no policy {policy}")
                elif policy not in wanted:
                    found.add(f"{schema}.{name} has another policy, {policy}")
                elif wanted[policy] != present[policy]:
                    found.add(f"{schema}.{name}: policy {policy} is not as generated: {present[policy]}")
    return found


async def _generated_policies(connection: AsyncConnection, roles: RoleNames, table: TenantTable) -> dict[str, str]:
    """What the generator makes, as this server prints it."""
    column = f"{quote(table.column.name)} {table.column.type}"
    async with connection.begin_nested() as savepoint:
        await connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {_REFERENCE} ({column})")
        for statement in tenant_table(_REFERENCE, roles, column=table.column):
            await connection.exec_driver_sql(statement)
        rows = await connection.execute(text(_REFERENCE_POLICIES))
        policies: dict[str, str] = {row.policyname: row.definition for row in rows}
        await savepoint.rollback()
    return policies
