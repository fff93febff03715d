"""The example of docs/data.md reads shards with webdataset alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def test_the_example_gives_the_ids_of_every_document(shards, random_documents):
    (code,) = re.findall(r"```python\n(import io.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert code.count("\n") <= 11
    # in a process of its own, as a user runs it: webdataset leaves its files to be closed by the garbage collector
    script = code.replace('"shards/mine"', repr(str(shards)))
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert [json.loads(line) for line in printed.splitlines()] == random_documents(120, seed=1)
