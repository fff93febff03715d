"""Data of tasks: files of labelled examples in, numpy arrays out. No model and no torch."""
