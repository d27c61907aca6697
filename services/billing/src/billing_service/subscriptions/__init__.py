"""Who is billed for which plan, and from when."""
