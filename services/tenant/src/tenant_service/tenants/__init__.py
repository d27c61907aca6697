"""The registry of tenants."""
