"""Downstream tasks: metrics of predictions, and what training on a task needs."""
