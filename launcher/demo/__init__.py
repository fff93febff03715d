"""The demo: downloads and steps."""
