"""Teachers: replicated, split over ranks, or read from a cache."""
