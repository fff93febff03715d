"""Students: copied layers, or narrower ones."""
