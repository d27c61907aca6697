"""The three kinds of tables that a service has."""

from dataclasses import dataclass
from enum import StrEnum

from tenantry.database._tenant_column import TENANT_ID, TenantColumn


class Retention(StrEnum):
    """What becomes of a tenant's rows when the tenant is purged."""

    ERASE = "erase"
    PSEUDONYMISE = "pseudonymise"
    STATUTE = "statute"  # kept as the law says: invoices, ledger, the audit trail
    TRANSIENT = "transient"  # gone by itself: messages on their way within minutes, records of topics by their days


@dataclass(frozen=True, slots=True)
class TenantTable:
    """Rows of tenants. Without ``schema`` the table is in ``pool`` and in the schema of each tenant, else in that one.

    ``immutable`` says that rows are written once: no role may then have the right to change or delete them.
    ``exported`` says whether they are in an export of the tenant's data: credentials, for one, are not.
    """

    name: str
    retention: Retention = Retention.ERASE
    immutable: bool = False
    column: TenantColumn = TENANT_ID
    schema: str | None = None
    exported: bool = True


@dataclass(frozen=True, slots=True)
class SystemTable:
    """Rows of the service itself, named ``schema.table``; a name without schema is in ``system``.

    ``tenant_column`` (a uuid) says that some are about tenants, ``retention`` what becomes of those, and ``exported``
    whether they are in an export.
    """

    name: str
    tenant_column: str | None = None
    retention: Retention = Retention.ERASE
    exported: bool = True


@dataclass(frozen=True, slots=True)
class SharedTable:
    """Reference data that every tenant may read, named ``schema.table``; a name without schema is in ``system``."""

    name: str
