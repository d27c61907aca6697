"""Support access: an operator inside one tenant, for a stated reason and half an hour at most."""
