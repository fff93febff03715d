"""Documents of text, from files and data sets."""
