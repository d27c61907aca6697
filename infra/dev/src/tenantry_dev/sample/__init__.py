"""The sample run: traces become events, twelve tenants, two plans, invoices."""
