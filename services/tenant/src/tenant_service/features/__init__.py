"""Feature flags: definitions of the platform and their values for a tenant."""
