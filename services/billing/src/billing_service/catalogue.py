"""The data catalogue: every table of this service, whose data it is, and what a purge does with it."""

from typing import Final

from tenantry.database import DataCatalogue, Retention, SystemTable, TenantTable

SERVICE: Final = "billing"

CATALOGUE: Final = DataCatalogue(
    SERVICE,
    [
        SystemTable("plan_version"),
        SystemTable("seller"),
        SystemTable("invoice_number"),
        SystemTable("usage_cut"),
        SystemTable("invoice_run"),
        SystemTable("invoice_run_item"),
        TenantTable("subscription", retention=Retention.STATUTE),
        TenantTable("billed_period", retention=Retention.STATUTE),
        TenantTable("invoice_final", retention=Retention.STATUTE),
        TenantTable("invoice_line", retention=Retention.STATUTE),
        TenantTable("standing"),
        TenantTable("usage_rollup"),
        TenantTable("usage_rollup_at_cut"),
        TenantTable("invoice_draft"),
    ],
)
