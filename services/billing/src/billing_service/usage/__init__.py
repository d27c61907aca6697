"""Billing's own copy of the usage rollups, and the cuts that say how far it has read."""
