"""Meters: definitions, versions, and their HTTP."""
