"""Files of a corpus: places, manifest, tars, and what is read out of them."""
