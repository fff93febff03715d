"""A model in another format or precision, and its comparison with the original."""
