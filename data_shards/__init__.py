"""The library: text, tokens and files. Knows no model; imports nothing of launcher or kd."""
