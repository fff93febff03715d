"""Checkpoints: written whole, verified, read back."""
