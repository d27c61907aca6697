"""Domains of tenants: claimed, proven by a TXT record, proven again, released into quarantine."""
