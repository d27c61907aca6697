"""Over how many keys of `usage.events.v1` the events of a tenant are spread."""
