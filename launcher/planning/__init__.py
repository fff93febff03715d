"""Arithmetic of a run before it starts."""
