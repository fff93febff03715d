"""Tasks: models with a head for labels, their batches, how terms see their logits, and scores."""
