"""Metrics of task predictions and their uncertainty: functions of numpy arrays and texts, without a model."""
