"""Alerts of what was accepted and is not counted as it should be."""
