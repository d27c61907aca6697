"""The state topics against the tables that they tell of: what differs, and publishing it again."""
