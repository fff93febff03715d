"""Numbers that a run reports beside its losses: utilisation, similarity of layers, first guesses."""
