"""From when a tenant's usage is billed, and whose usage nobody bills."""
