"""The objective: terms applied to outputs, masked, weighted and summed."""
