"""What the catalogues of one database say, as values: the checks need no connection."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

PUBLIC: Final = 0  # the grantee that stands for everybody, as in pg_class.relacl

TABLE_KINDS: Final = frozenset("rp")


@dataclass(frozen=True, slots=True)
class Role:
    id: int
    name: str
    login: bool
    superuser: bool
    bypass: bool
    create_role: bool
    memberships: frozenset[int] = frozenset()
    """The roles whose rights it has or can take, itself included, through any number of steps."""
    sessions: int = 0
    """How many sessions it has in this database now, those of the doctor left out."""


@dataclass(frozen=True, slots=True)
class Setting:
    """``ALTER ROLE | DATABASE ... SET name = value``; None stands for all roles or all databases."""

    role: str | None
    database: str | None
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    not_null: bool
    identity: bool


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    permissive: bool
    command: str
    """One of ``* r a w d``, as in pg_policy.polcmd."""
    roles: tuple[int, ...]
    using: str | None
    check: str | None

    def applies_to(self, command: str) -> bool:
        return self.command in {"*", command}


@dataclass(frozen=True, slots=True)
class ForeignKey:
    name: str
    target: int
    columns: tuple[str, ...]
    target_columns: tuple[str, ...]
    on_delete: str


@dataclass(frozen=True, slots=True)
class Index:
    """`columns` has None for an expression. A unique or exclusion constraint is seen as its index."""

    name: str
    columns: tuple[str | None, ...]
    unique: bool
    primary: bool
    exclusion: bool
    constraint: bool
    method: str
    leakproof: bool
    """Whether some operator of each of its columns may be used below a policy."""
    definition: str


@dataclass(frozen=True, slots=True, eq=False)
class Relation:
    id: int
    schema: str
    name: str
    kind: str
    """r table, p partitioned table, v view, m materialized view, f foreign table, as in pg_class.relkind."""
    owner: int
    secured: bool
    forced: bool
    parent: int | None
    """The partitioned table or the inheritance parent."""
    partition: bool
    rows: int
    invoker: bool
    grants: Mapping[int, frozenset[str]]
    columns: tuple[Column, ...] = ()
    policies: tuple[Policy, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    indexes: tuple[Index, ...] = ()
    triggers: tuple[str, ...] = ()
    reads: tuple[int, ...] = ()
    """The relations that a view or a materialized view reads."""

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def is_table(self) -> bool:
        return self.kind in TABLE_KINDS

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)

    def grants_to_others(self) -> dict[int, frozenset[str]]:
        return {grantee: rights for grantee, rights in self.grants.items() if grantee != self.owner}


@dataclass(frozen=True, slots=True)
class Function:
    schema: str
    name: str
    arguments: str
    owner: int
    search_path: str | None
    grantees: frozenset[int]
    body: str

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}({self.arguments})"


@dataclass(frozen=True, slots=True)
class DefaultPrivilege:
    maker: int
    schema: str | None
    grantee: int
    privileges: frozenset[str]


@dataclass(frozen=True, slots=True)
class Publication:
    name: str
    all_tables: bool
    tables: frozenset[int]


@dataclass(frozen=True, slots=True)
class Shape:
    """Schemas with the same tables: tenants that have a schema each. One of each variant is in the inventory."""

    schemas: tuple[str, ...]
    representatives: tuple[str, ...]
    roles: tuple[int, ...]
    """The roles that may write in two or more of the schemas."""

    @property
    def label(self) -> str:
        return f"{self.schemas[0]} and {len(self.schemas) - 1} like it"


@dataclass(frozen=True, slots=True)
class Inventory:
    server: str
    database: str
    role: int
    roles: Mapping[int, Role]
    settings: tuple[Setting, ...] = ()
    relations: Mapping[int, Relation] = field(default_factory=dict)
    functions: tuple[Function, ...] = ()
    default_privileges: tuple[DefaultPrivilege, ...] = ()
    publications: tuple[Publication, ...] = ()
    shapes: tuple[Shape, ...] = ()
    open_schemas: frozenset[str] = frozenset()
    """Schemas in which everybody may create objects."""
    temporary: bool = True
    """Everybody may create temporary tables."""
    leakproof_functions: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    """What could not be seen."""

    @property
    def tables(self) -> Iterable[Relation]:
        return (relation for relation in self.relations.values() if relation.is_table)

    def role_name(self, role: int) -> str:
        if role == PUBLIC:
            return "PUBLIC"
        known = self.roles.get(role)
        return known.name if known else f"role {role}"

    def bypasses(self, role: int, relation: Relation) -> bool:
        """Whether no policy of `relation` is asked for what runs with the rights of `role`."""
        known = self.roles.get(role)
        if known is None:
            return False
        if known.superuser or known.bypass:
            return True
        return relation.owner in known.memberships and not (relation.secured and relation.forced)

    def lineage(self, relation: Relation) -> Relation:
        """The table at the top of partitions and inheritance."""
        while relation.parent is not None and relation.parent in self.relations:
            relation = self.relations[relation.parent]
        return relation


def references_to(inventory: Inventory) -> dict[int, list[tuple[Relation, ForeignKey]]]:
    """The foreign keys of an inventory, with their tables, by the table they point at."""
    found: defaultdict[int, list[tuple[Relation, ForeignKey]]] = defaultdict(list)
    for relation in inventory.tables:
        for key in relation.foreign_keys:
            found[key.target].append((relation, key))
    return dict(found)
