"""Held-out scores and layer similarity."""
