"""Invitations: how a person becomes a member by their own consent."""
