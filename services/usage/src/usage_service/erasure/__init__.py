"""Erasing one person inside a tenant: from everything that the usage service keeps, with a report."""
