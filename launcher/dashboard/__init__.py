"""The W&B workspace and comparison report of a project, made from the catalogue of metrics."""
