"""The data catalogue: every table of this service, and whose data is in it."""

from tenantry.database import DataCatalogue, Retention, SystemTable
from tenantry.offboarding import OFFBOARDING_TABLES

CATALOGUE = DataCatalogue(
    "tenant",
    [
        # Credentials, by their hashes, are in no export.
        SystemTable("api_key", tenant_column="tenant_id", exported=False),
        # The trail proves what was done, the purge included.
        SystemTable("audit_chain", tenant_column="chain_id", retention=Retention.STATUTE, exported=False),
        SystemTable("audit_entry", tenant_column="chain_id", retention=Retention.STATUTE),
        SystemTable("branding_logo", tenant_column="tenant_id"),
        SystemTable("client"),
        SystemTable("config_key"),
        SystemTable("config_layer", tenant_column="tenant_id"),
        SystemTable("config_schema"),
        SystemTable("config_schema_version"),
        SystemTable("config_version", tenant_column="tenant_id"),
        # Ids and codes, which outlive the tenant: its purge may be what is found wanting.
        SystemTable("finding", tenant_column="tenant_id", retention=Retention.STATUTE, exported=False),
        SystemTable("flag"),
        SystemTable("flag_version"),
        SystemTable("domain_claim", tenant_column="tenant_id"),
        SystemTable("invitation", tenant_column="tenant_id", exported=False),
        SystemTable("key_set"),
        SystemTable("member", tenant_column="tenant_id"),
        SystemTable("person"),
        SystemTable("purge_certificate", tenant_column="tenant_id", retention=Retention.STATUTE),
        # Names that nobody else may have yet; the row goes when the quarantine ends.
        SystemTable("quarantined_name", tenant_column="tenant_id", retention=Retention.STATUTE),
        SystemTable("reconciliation", tenant_column="tenant_id", retention=Retention.STATUTE, exported=False),
        SystemTable("reconciliation_page"),
        SystemTable("saga_request"),
        SystemTable("saga_run", tenant_column="tenant_id", retention=Retention.STATUTE, exported=False),
        SystemTable("saga_step"),
        SystemTable("session", tenant_column="tenant_id", exported=False),
        SystemTable("sign_in_code", tenant_column="tenant_id", exported=False),
        SystemTable("signing_key"),
        SystemTable("store"),
        SystemTable("support_grant", tenant_column="tenant_id", retention=Retention.STATUTE),
        # What remains of a tenant has no name; its id and its slug are never used again.
        SystemTable("tenant", tenant_column="id", retention=Retention.STATUTE),
        SystemTable("test_clock"),
        SystemTable("tier"),
        SystemTable("tier_version"),
        SystemTable("token_revocation", tenant_column="tenant_id", exported=False),
        *OFFBOARDING_TABLES,
    ],
)
