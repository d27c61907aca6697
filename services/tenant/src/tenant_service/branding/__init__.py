"""Branding: logos, and the typed view of the namespace `branding`."""
