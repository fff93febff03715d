"""Speed of a run, measured on real updates."""
