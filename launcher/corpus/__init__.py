"""Shards, teacher caches and vocabularies from the command line."""
