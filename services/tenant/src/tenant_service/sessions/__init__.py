"""People: one-time codes, sessions, and the page where they sign in."""
