"""The names of roles, schemas and tenant databases, and how identifiers are quoted. Nothing else spells them."""

from dataclasses import dataclass
from uuid import UUID

POOL_SCHEMA = "pool"
SYSTEM_SCHEMA = "system"
FUNCTION_SCHEMA = "tenantry"
TENANT_SETTING = "app.tenant_id"


@dataclass(frozen=True, slots=True)
class RoleNames:
    """The database roles of one service.

    ``owner`` owns every object and cannot log in; ``migrator`` and ``provisioner`` are its members; ``service`` serves
    requests under row level security; ``system`` works for many tenants under a policy of its own; ``backup`` is
    shared by all services and only reads.
    """

    service_name: str

    @property
    def owner(self) -> str:
        return f"{self.service_name}_owner"

    @property
    def migrator(self) -> str:
        return f"{self.service_name}_migrator"

    @property
    def service(self) -> str:
        return f"{self.service_name}_service"

    @property
    def system(self) -> str:
        return f"{self.service_name}_system"

    @property
    def provisioner(self) -> str:
        return f"{self.service_name}_provisioner"

    @property
    def backup(self) -> str:
        return "tenantry_backup"


def tenant_schema(tenant_id: UUID) -> str:
    """The schema that holds a tenant of the schema pattern."""
    return f"t_{tenant_id.hex}"


def tenant_database(service: str, tenant_id: UUID) -> str:
    """The database that holds a tenant of the database pattern."""
    return f"{service}_t_{tenant_id.hex}"


def quote(identifier: str) -> str:
    """One identifier, quoted."""
    return '"' + identifier.replace('"', '""') + '"'


def quote_qualified(name: str) -> str:
    """``table`` or ``schema.table`` with each part quoted."""
    return ".".join(quote(part) for part in name.split("."))


def literal(text: str) -> str:
    """One string literal; right for standard_conforming_strings, which is on since PostgreSQL 9.1."""
    return "'" + text.replace("'", "''") + "'"
