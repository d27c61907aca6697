"""Features, quotas and grants of tenants: their HTTP, their balances, and the alerts that follow."""
