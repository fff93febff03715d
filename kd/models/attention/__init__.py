"""Attention of the models: by document, and the choice of an implementation."""
