"""Every table of the usage service, whose rows they are, and what a purge does with them."""

from tenantry.database import DataCatalogue, Retention, SharedTable, SystemTable, TenantTable
from tenantry.offboarding import OFFBOARDING_TABLES

CATALOGUE = DataCatalogue(
    "usage",
    [
        TenantTable("usage_event"),
        TenantTable("usage_rollup"),
        TenantTable("usage_unique_value"),
        TenantTable("ended_rollup"),
        TenantTable("correction"),
        TenantTable("dead_letter"),
        TenantTable("erasure"),
        TenantTable("erasure_place"),
        TenantTable("token"),
        TenantTable("token_reading"),
        TenantTable("unmatched_type"),
        TenantTable("quota"),
        TenantTable("quota_limit"),
        TenantTable("quota_grant"),
        TenantTable("feature_access"),
        TenantTable("entitlement_balance"),
        TenantTable("entitlement_alert"),
        TenantTable("entitled_tenant"),
        TenantTable("not_counted"),
        SharedTable("meter_catalogue"),
        SharedTable("meter"),
        SharedTable("partition_progress"),
        SystemTable("rollup_change"),
        SharedTable("feature"),
        SharedTable("entitlement_tier"),
        SystemTable("balance_change", tenant_column="tenant_id"),
        SystemTable("parked_record", tenant_column="tenant_id"),
        SystemTable("spread_tenant", tenant_column="tenant_id", exported=False),
        SystemTable("tenant_rate", tenant_column="tenant_id", retention=Retention.TRANSIENT, exported=False),
        SystemTable("cut"),
        SystemTable("cut_lane"),
        SystemTable("usage_day"),
        SystemTable("gone_day"),
        SystemTable("meter_backfill"),
        SystemTable("archive_object"),
        # What it says of a tenant goes with the tenant's rows in the archive.
        SystemTable("archived_tenant", tenant_column="tenant_id", retention=Retention.TRANSIENT, exported=False),
        *OFFBOARDING_TABLES,
    ],
)
