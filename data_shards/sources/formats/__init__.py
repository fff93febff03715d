"""File formats. A new format is one file with a FORMAT, and its name in FORMATS."""

from data_shards.sources.formats import csv, jsonl, parquet, text, webdataset

FORMATS = (text.FORMAT, jsonl.FORMAT, parquet.FORMAT, csv.FORMAT, webdataset.FORMAT)
BY_KIND = {one.kind: one for one in FORMATS}
KIND_OF_ENDING = {ending: one.kind for one in FORMATS if one.by_ending for ending in one.endings}
