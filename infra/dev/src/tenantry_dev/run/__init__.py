"""Running the whole system from one command: processes, their supervision, and their settings."""
