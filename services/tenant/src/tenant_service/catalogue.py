"""The data catalogue: every table of this service, and whose data is in it."""

from tenantry.database import DataCatalogue, SystemTable

CATALOGUE = DataCatalogue(
    "tenant",
    [
        SystemTable("api_key"),
        SystemTable("audit_chain"),
        SystemTable("audit_entry"),
        SystemTable("branding_logo"),
        SystemTable("client"),
        SystemTable("config_key"),
        SystemTable("config_layer"),
        SystemTable("config_schema"),
        SystemTable("config_schema_version"),
        SystemTable("config_version"),
        SystemTable("flag"),
        SystemTable("flag_version"),
        SystemTable("domain_claim"),
        SystemTable("invitation"),
        SystemTable("key_set"),
        SystemTable("member"),
        SystemTable("person"),
        SystemTable("quarantined_name"),
        SystemTable("saga_request"),
        SystemTable("saga_run"),
        SystemTable("saga_step"),
        SystemTable("session"),
        SystemTable("sign_in_code"),
        SystemTable("signing_key"),
        SystemTable("store"),
        SystemTable("support_grant"),
        SystemTable("tenant"),
        SystemTable("test_clock"),
        SystemTable("tier"),
        SystemTable("tier_version"),
    ],
)
