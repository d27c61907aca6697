"""Tiers: versioned documents that drive limits, entitlements and isolation."""
