"""Examples to padded batches of token ids: the tokenizer, windows of questions, the order of training, padding."""
