"""The data catalogue: every table of this service and what it is."""
