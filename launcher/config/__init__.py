"""The configuration of a run: YAML, command line, validation."""
