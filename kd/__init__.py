"""The science: tensors in, losses and students out. Knows no file format of the corpus; imports nothing of launcher or data_shards."""
