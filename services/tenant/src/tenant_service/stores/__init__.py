"""Stores: the PostgreSQL clusters that tenants are placed in."""
