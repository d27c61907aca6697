"""The data catalogue: every table of this service, whose data it is, and what a purge does with it."""

from typing import Final

from tenantry.database import DataCatalogue, Retention, SystemTable, TenantTable
from tenantry.offboarding import OFFBOARDING_TABLES

SERVICE: Final = "billing"

CATALOGUE: Final = DataCatalogue(
    SERVICE,
    [
        SystemTable("plan_version"),
        SystemTable("seller"),
        # Gapless numbers and what a run did stand beside the invoices that the law keeps.
        SystemTable("invoice_number", tenant_column="tenant_id", retention=Retention.STATUTE),
        SystemTable("usage_cut"),
        SystemTable("invoice_run"),
        SystemTable("invoice_run_item", tenant_column="tenant_id", retention=Retention.STATUTE),
        TenantTable("subscription", retention=Retention.STATUTE),
        TenantTable("billed_period", retention=Retention.STATUTE),
        TenantTable("invoice_final", retention=Retention.STATUTE),
        TenantTable("invoice_line", retention=Retention.STATUTE),
        TenantTable("standing"),
        TenantTable("usage_rollup"),
        TenantTable("usage_rollup_at_cut"),
        TenantTable("invoice_draft"),
        *OFFBOARDING_TABLES,
    ],
)
