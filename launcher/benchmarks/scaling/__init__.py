"""Speed on one rank and on many, and the collectives of an update."""
