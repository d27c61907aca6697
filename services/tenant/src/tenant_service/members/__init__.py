"""Members: which person has which roles in which tenant."""
