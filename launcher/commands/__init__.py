"""Command-line arguments of every verb. Imports nothing heavy."""
