"""Students as files that other programs read."""
