"""The pure rules of the usage service: values in, decisions out, no IO."""
