"""Text to token ids: the tokenizer, its worker processes, smaller vocabularies."""
