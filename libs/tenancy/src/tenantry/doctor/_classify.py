"""Which tables hold rows of tenants, and how that is known. Pure: from an inventory to classes with their proof."""

from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final, TypeAlias

from tenantry.doctor._inventory import ForeignKey, Inventory, Relation, references_to

# Names that columns of tenants have, the surest first. An account or a customer is as often something within a tenant.
CANDIDATES: Final = (
    *("tenant_id", "tenantid", "org_id", "organization_id", "organisation_id", "orgid", "workspace_id", "company_id"),
    *("team_id", "account_id", "customer_id", "client_id", "site_id", "shop_id", "store_id", "tenant", "org"),
)
_LEDGERS: Final = frozenset(
    {
        *("alembic_version", "schema_migrations", "flyway_schema_history", "django_migrations", "_prisma_migrations"),
        *("knex_migrations", "knex_migrations_lock", "goose_db_version", "ar_internal_metadata", "databasechangelog"),
        *("databasechangeloglock", "__efmigrationshistory", "sequelizemeta", "django_content_type"),
    }
)

ReferencesTo: TypeAlias = Mapping[int, list[tuple[Relation, ForeignKey]]]


class TableClass(StrEnum):
    TENANT = "tenant"
    SHARED = "shared"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Classification:
    """`column` is the table's own tenant column, or None where its rows belong to tenants by `path` or by schema.

    `path` has one foreign key a step, from the table to one that has the column. `proof` says it for people.
    """

    table: Relation
    kind: TableClass
    proof: str
    column: str | None = None
    path: tuple[tuple[Relation, ForeignKey], ...] = ()
    by_schema: bool = False


@dataclass(frozen=True, slots=True)
class Classes:
    column: str | None
    registry: Relation | None
    """The table that has one row for each tenant."""
    tables: Mapping[int, Classification]

    def tenant(self, relation: int) -> Classification | None:
        """The class of a table with rows of tenants, else None."""
        found = self.tables.get(relation)
        return found if found and found.kind is TableClass.TENANT else None


def classify(inventory: Inventory, column: str | None = None, shared: Collection[str] = ()) -> Classes:
    """The class of every table; partitions and children have that of their parent.

    `column` is the tenant column's name; without it the likeliest one is taken. `shared` has patterns of tables, as
    ``schema.table``, that somebody knows to be reference data.
    """
    tops = [table for table in inventory.tables if inventory.lineage(table) is table]
    in_shapes = {schema for shape in inventory.shapes for schema in shape.representatives}
    chosen = column or _likeliest_column(inventory, tops, in_shapes)
    registry = _registry(inventory, tops, chosen)
    found: dict[int, Classification] = {}
    for table in tops:
        if any(fnmatchcase(table.label, pattern) for pattern in shared):
            found[table.id] = Classification(table, TableClass.SHARED, "you said so")
        elif registry is not None and table.id == registry.id:
            found[table.id] = Classification(table, TableClass.SHARED, f"one row a tenant: {chosen} points at it")
        elif chosen and table.column(chosen):
            found[table.id] = Classification(table, TableClass.TENANT, f"column {chosen}", column=chosen)
        elif registry is not None and (own := _keys_to(table, registry)):
            found[table.id] = _by_registry(table, registry, own)
    references = references_to(inventory)
    _follow_foreign_keys(inventory, tops, references, found)
    for table in tops:
        if table.id not in found:
            found[table.id] = _by_place(table, inventory, references, found, in_shapes)
    for table in inventory.tables:
        if table.id not in found:
            above = found[inventory.lineage(table).id]
            found[table.id] = Classification(
                table, above.kind, f"part of {above.table.label}", above.column, above.path, above.by_schema
            )
    return Classes(chosen, registry, found)


def _likeliest_column(inventory: Inventory, tables: Collection[Relation], in_shapes: Collection[str]) -> str | None:
    """By how many tables have the column, whether it is a foreign key, and whether policies compare it."""
    scores: Counter[str] = Counter()
    for table in tables:
        for name in CANDIDATES:
            if table.column(name) is None:
                continue
            compared = any(name in f"{policy.using} {policy.check}" for policy in table.policies)
            if table.schema in in_shapes and not compared:
                continue  # within a tenant's own schema an account or a customer is no tenant
            references = any(key.columns == (name,) for key in table.foreign_keys)
            scores[name] += 1 + references + 2 * compared
    for name in list(scores):
        if any(
            above in scores and CANDIDATES.index(above) < CANDIDATES.index(name)
            for above in _candidates_of_target(inventory, tables, name)
        ):
            del scores[name]
    return max(scores, key=lambda name: (scores[name], -CANDIDATES.index(name)), default=None)


def _candidates_of_target(inventory: Inventory, tables: Collection[Relation], name: str) -> set[str]:
    """Which other candidates the table has that `name` points at: a customer that belongs to an org is no tenant."""
    targets = {key.target for table in tables for key in table.foreign_keys if key.columns == (name,)}
    return {
        column.name
        for target in targets
        if target in inventory.relations
        for column in inventory.relations[target].columns
        if column.name in CANDIDATES and column.name != name
    }


def _registry(inventory: Inventory, tables: Collection[Relation], column: str | None) -> Relation | None:
    """What foreign keys of the tenant column alone point at, if it has not that column itself."""
    targets = Counter(key.target for table in tables for key in table.foreign_keys if key.columns == (column,))
    for target, _ in targets.most_common():
        relation = inventory.relations.get(target)
        if relation is not None and column and relation.column(column) is None:
            return relation
    stems = {column.removesuffix("_id").removesuffix("id")} if column else set()
    for table in tables:
        if stems & {table.name, table.name.removesuffix("s")} and table.column("id") and not table.column(column or ""):
            return table
    return None


def _keys_to(table: Relation, target: Relation) -> list[ForeignKey]:
    return [key for key in table.foreign_keys if key.target == target.id and len(key.columns) == 1]


def _by_registry(table: Relation, registry: Relation, keys: list[ForeignKey]) -> Classification:
    names = ", ".join(key.columns[0] for key in keys)
    if len(keys) > 1:
        return Classification(table, TableClass.UNCLEAR, f"{names} each point at {registry.label}")
    return Classification(
        table, TableClass.TENANT, f"column {names}, which points at {registry.label}", column=keys[0].columns[0]
    )


def _follow_foreign_keys(
    inventory: Inventory,
    tables: Collection[Relation],
    references: ReferencesTo,
    found: dict[int, Classification],
) -> None:
    """Tables without the column whose rows must have a parent in a tenant table; the shortest path proves it."""
    within = {table.id for table in tables}
    pending = deque(item for item in found.values() if item.kind is TableClass.TENANT)
    optional: dict[int, str] = {}
    while pending:
        parent = pending.popleft()
        for child, key in references.get(parent.table.id, ()):
            if child.id not in within or child.id in found:
                continue
            if not all(column and column.not_null for column in map(child.column, key.columns)):
                optional.setdefault(child.id, f"{_step(child, key, parent.table)}, which may be NULL")
                continue
            path = ((child, key), *parent.path)
            proof = " -> ".join(f"{table.label}.{', '.join(step.columns)}" for table, step in path)
            last = inventory.relations[path[-1][1].target]
            item = Classification(child, TableClass.TENANT, f"{proof} -> {last.label}", path=path)
            found[child.id] = item
            pending.append(item)
    for table in tables:
        if table.id in optional and table.id not in found:
            found[table.id] = Classification(table, TableClass.UNCLEAR, optional[table.id])


def _step(child: Relation, key: ForeignKey, parent: Relation) -> str:
    return f"{child.label}.{', '.join(key.columns)} -> {parent.label}"


def _by_place(
    table: Relation,
    inventory: Inventory,
    references: ReferencesTo,
    found: Mapping[int, Classification],
    in_shapes: Collection[str],
) -> Classification:
    if table.name.lower() in _LEDGERS:
        return Classification(table, TableClass.SHARED, "kept by a migration tool or a framework")
    if table.schema in in_shapes:
        count = next(len(shape.schemas) for shape in inventory.shapes if table.schema in shape.representatives)
        return Classification(table, TableClass.TENANT, f"in {count} schemas of one shape", by_schema=True)
    for child, key in references.get(table.id, ()):
        if child.id in found and found[child.id].kind is TableClass.TENANT:
            return Classification(table, TableClass.SHARED, f"tenant rows point at it: {_step(child, key, table)}")
    return Classification(table, TableClass.UNCLEAR, "no tenant column and no foreign key to or from tenant rows")
