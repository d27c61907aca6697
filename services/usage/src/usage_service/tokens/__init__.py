"""Tokens that stand for values of events: kept in a vault of each tenant, from which an operator can read them back."""
