"""Advice on which of the measured models to ship, and on whether distillation pays."""
