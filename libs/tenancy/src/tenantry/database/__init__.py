"""Sessions bound to tenants, row level security, migrations and the data catalogue, on PostgreSQL."""

from typing import TYPE_CHECKING

from tenantry._exports import lazy_exports
from tenantry.database._backbone import backbone_tables, bind_function
from tenantry.database._bulk import copy_rows, copy_rows_sync
from tenantry.database._catalogue import DataCatalogue
from tenantry.database._criteria import TenantScoped, bound_tenant
from tenantry.database._databases import RELAYED, Databases
from tenantry.database._errors import (
    ConnectionsExhausted,
    ForeignRow,
    MigrationError,
    MissingUrl,
    StatementRefused,
    UnknownStore,
    UnsafeRole,
    UnusableTenantKey,
)
from tenantry.database._metadata import TenantMixin, metadata
from tenantry.database._names import RoleNames, tenant_database, tenant_schema
from tenantry.database._policies import immutable_table, shared_table, system_table, tenant_table
from tenantry.database._session import (
    ReadSession,
    SyncReadSession,
    SyncSystemSession,
    SyncWriteSession,
    SystemSession,
    WriteSession,
)
from tenantry.database._settings import DatabaseSettings, MigratorSettings, StoreUrls
from tenantry.database._tables import Retention, SharedTable, SystemTable, TenantTable
from tenantry.database._tenant_column import TENANT_ID, TenantColumn, TenantKey
from tenantry.database._warm_table import warm_place_table

if TYPE_CHECKING:
    from tenantry.database._environment import run_migrations_env
    from tenantry.database._found_places import FoundPlace
    from tenantry.database._migrations import Migrator, migrate
    from tenantry.database._places import Places
    from tenantry.database._provisioning import ServiceUrls, create_service_database, create_tenant_database
    from tenantry.database._releasing import PlaceInUse, release_place
    from tenantry.database._sync_databases import SyncDatabases

__all__ = [
    "RELAYED",
    "TENANT_ID",
    "ConnectionsExhausted",
    "DataCatalogue",
    "DatabaseSettings",
    "Databases",
    "ForeignRow",
    "FoundPlace",
    "MigrationError",
    "Migrator",
    "MigratorSettings",
    "MissingUrl",
    "PlaceInUse",
    "Places",
    "ReadSession",
    "Retention",
    "RoleNames",
    "ServiceUrls",
    "SharedTable",
    "StatementRefused",
    "StoreUrls",
    "SyncDatabases",
    "SyncReadSession",
    "SyncSystemSession",
    "SyncWriteSession",
    "SystemSession",
    "SystemTable",
    "TenantColumn",
    "TenantKey",
    "TenantMixin",
    "TenantScoped",
    "TenantTable",
    "UnknownStore",
    "UnsafeRole",
    "UnusableTenantKey",
    "WriteSession",
    "backbone_tables",
    "bind_function",
    "bound_tenant",
    "copy_rows",
    "copy_rows_sync",
    "create_service_database",
    "create_tenant_database",
    "immutable_table",
    "metadata",
    "migrate",
    "release_place",
    "run_migrations_env",
    "shared_table",
    "system_table",
    "tenant_database",
    "tenant_schema",
    "tenant_table",
    "warm_place_table",
]

# What needs an extra, and what only migrations and provisioning need.
__getattr__ = lazy_exports(
    __name__,
    {
        "_environment": ("run_migrations_env",),
        "_found_places": ("FoundPlace",),
        "_migrations": (
            "Migrator",
            "migrate",
        ),
        "_places": ("Places",),
        "_provisioning": (
            "ServiceUrls",
            "create_service_database",
            "create_tenant_database",
        ),
        "_releasing": (
            "PlaceInUse",
            "release_place",
        ),
        "_sync_databases": ("SyncDatabases",),
    },
)
