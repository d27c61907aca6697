"""Plans: immutable versions under a code, and previews of prices."""
