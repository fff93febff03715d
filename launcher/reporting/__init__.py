"""Reports of a run: console, metrics file, W&B."""
