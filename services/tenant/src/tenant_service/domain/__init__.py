"""The rules of a tenant's life, its sagas and its credentials: values in, decisions out, no IO."""
