"""The end of a tenant: export, grace, purge and its certificate."""
