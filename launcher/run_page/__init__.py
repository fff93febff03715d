"""A run's own page as one HTML file, and its numbers live in a terminal: from the run folder alone."""
