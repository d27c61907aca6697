"""The embedded stack, the sample run, the demo and the benches of Tenantry. For development, never for production."""
