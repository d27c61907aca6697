"""What every check gets: the inventory, the classes of its tables, and which roles the application uses."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tenantry.doctor._classify import Classes, Classification, TableClass
from tenantry.doctor._errors import DoctorFailed
from tenantry.doctor._inventory import PUBLIC, Inventory, Relation, Role

# Roles by which providers look after their servers: their sessions are not the application's.
_PROVIDERS: Final = frozenset(
    {
        *("rdsadmin", "rds_superuser", "rdsproxyadmin", "cloudsqladmin", "cloudsqlagent", "cloudsqlsuperuser"),
        *("azuresu", "azure_superuser", "azure_pg_admin", "alloydbadmin", "cloud_admin", "neon_superuser"),
        *("supabase_admin", "supabase_auth_admin", "supabase_storage_admin", "supabase_replication_admin"),
        *("supabase_read_only_user", "pgbouncer", "doadmin", "_doadmin_managed", "crunchy_superuser"),
    }
)

READING: Final = frozenset({"SELECT", "UPDATE", "DELETE"})
USING: Final = READING | {"INSERT"}


@dataclass(frozen=True)
class Subject:
    """`app_roles` are those that people name, or else those seen in use: the doctor's own and those with sessions."""

    inventory: Inventory
    classes: Classes
    app_roles: tuple[Role, ...]
    named: bool
    large_rows: int

    @cached_property
    def tenant_tables(self) -> tuple[Classification, ...]:
        """The tenant tables that are not part of another, by name."""
        items = (item for item in self.classes.tables.values() if item.kind is TableClass.TENANT)
        tops = (item for item in items if self.inventory.lineage(item.table) is item.table)
        return tuple(sorted(tops, key=lambda item: item.table.label))

    @property
    def pooled(self) -> Iterator[Classification]:
        """The tenant tables that hold rows of several tenants, or are protected as if they did."""
        return (item for item in self.tenant_tables if not item.by_schema or item.table.secured)

    def rows(self, relation: Relation) -> int:
        """The planner's estimate; that of a partitioned table is the sum of its parts."""
        return max(relation.rows, self._rows_of_parts[relation.id])

    @cached_property
    def _rows_of_parts(self) -> Counter[int]:
        sums: Counter[int] = Counter()
        for table in self.inventory.tables:
            if table.kind == "r":
                sums[self.inventory.lineage(table).id] += table.rows
        return sums

    def reachable(self, relation: Relation) -> list[int]:
        """The roles other than a resting owner that may read `relation`."""
        readers = {role for role, rights in relation.grants_to_others().items() if rights & READING}
        readers |= {role.id for role in self.app_roles if relation.owner in role.memberships}
        return sorted(readers, key=self.inventory.role_name)

    def out_of_reach(self, relation: Relation, rights: frozenset[str] = READING) -> bool:
        """Whether the application's roles, known as such by what else they may read, have none of `rights` here.

        A role that may read no protected table is no application's: the doctor may have been given a login of its own.
        """
        return self._serving and not any(_may(role, relation, rights) for role in self.app_roles)

    @cached_property
    def _serving(self) -> bool:
        return any(
            item.table.secured and _may(role, item.table, READING)
            for item in self.tenant_tables
            for role in self.app_roles
        )

    def names(self, roles: Collection[int]) -> str:
        return ", ".join(self.inventory.role_name(role) for role in roles)


def _may(role: Role, relation: Relation, some: frozenset[str]) -> bool:
    return (
        role.superuser
        or relation.owner in role.memberships
        or any(
            rights & some and (grantee == PUBLIC or grantee in role.memberships)
            for grantee, rights in relation.grants.items()
        )
    )


def app_roles(inventory: Inventory, names: Collection[str]) -> tuple[Role, ...]:
    """The roles called `names`, or those seen in use. Raises `DoctorFailed` for a name that there is not."""
    if names:
        known = {role.name: role for role in inventory.roles.values()}
        if missing := sorted(set(names) - set(known)):
            msg = f"there is no role {', '.join(missing)}"
            raise DoctorFailed(msg)
        return tuple(known[name] for name in sorted(set(names)))
    used = (
        role
        for role in inventory.roles.values()
        if role.id == inventory.role or (role.sessions and role.name not in _PROVIDERS)
    )
    return tuple(sorted(used, key=lambda role: role.name))
