"""File formats. A new format is one file with a FORMAT, and its name in FORMATS."""

from data_shards.sources.formats import csv, jsonl, parquet, text, webdataset

FORMATS = (text.FORMAT, jsonl.FORMAT, parquet.FORMAT, csv.FORMAT, webdataset.FORMAT)
BY_KIND = {entry.kind: entry for entry in FORMATS}
KIND_OF_ENDING = {ending: entry.kind for entry in FORMATS if entry.by_ending for ending in entry.endings}
