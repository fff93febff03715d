"""Formats of task files: rows of tables, CoNLL and SQuAD."""
