"""Tokens of a company's own identity provider, refused before their end."""
