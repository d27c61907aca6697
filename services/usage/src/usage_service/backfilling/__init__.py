"""Counting for a meter what was stored before it was made."""
