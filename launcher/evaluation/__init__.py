"""Scores and layer similarity from the command line."""
