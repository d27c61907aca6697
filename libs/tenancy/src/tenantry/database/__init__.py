"""Sessions bound to tenants, row level security, migrations and the data catalogue, on PostgreSQL."""

from tenantry.database._backbone import backbone_tables
from tenantry.database._bulk import copy_rows
from tenantry.database._catalogue import DataCatalogue
from tenantry.database._databases import Databases
from tenantry.database._environment import run_migrations_env
from tenantry.database._errors import ConnectionsExhausted, MigrationError, UnknownStore, UnsafeRole
from tenantry.database._metadata import TenantMixin, metadata
from tenantry.database._migrations import Migrator, migrate
from tenantry.database._names import RoleNames, tenant_database, tenant_schema
from tenantry.database._policies import immutable_table, shared_table, system_table, tenant_table
from tenantry.database._provisioning import ServiceUrls, create_service_database, create_tenant_database
from tenantry.database._session import ReadSession, SystemSession, WriteSession
from tenantry.database._settings import DatabaseSettings
from tenantry.database._tables import Retention, SharedTable, SystemTable, TenantTable

__all__ = [
    "ConnectionsExhausted",
    "DataCatalogue",
    "DatabaseSettings",
    "Databases",
    "MigrationError",
    "Migrator",
    "ReadSession",
    "Retention",
    "RoleNames",
    "ServiceUrls",
    "SharedTable",
    "SystemSession",
    "SystemTable",
    "TenantMixin",
    "TenantTable",
    "UnknownStore",
    "UnsafeRole",
    "WriteSession",
    "backbone_tables",
    "copy_rows",
    "create_service_database",
    "create_tenant_database",
    "immutable_table",
    "metadata",
    "migrate",
    "run_migrations_env",
    "shared_table",
    "system_table",
    "tenant_database",
    "tenant_schema",
    "tenant_table",
]
