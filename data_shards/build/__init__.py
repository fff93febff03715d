"""Building shards: documents in, tars and a manifest out."""
