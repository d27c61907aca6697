"""The meter worker: from records of `usage.events.v1` to raw events and rollups, exactly once."""
