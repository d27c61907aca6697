"""What could not be counted: listed, counted by tenant and kind, and replayed."""
