"""Predictions of a model on texts."""
