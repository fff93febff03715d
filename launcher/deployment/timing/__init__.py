"""Time of models, and an answer to a target."""
