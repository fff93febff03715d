"""Comparisons and chains of runs on a task."""
