"""Several runs: comparisons and chains."""
