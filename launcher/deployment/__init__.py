"""A finished student for others: the model hub."""
