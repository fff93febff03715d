"""The example of docs/data.md reads shards with webdataset alone."""

import contextlib
import io
import json
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def test_the_example_gives_the_ids_of_every_document(shards, random_documents):
    (code,) = re.findall(r"```python\n(import io.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert code.count("\n") <= 12
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code.replace('"shards/mine"', repr(str(shards))), {})
    assert [json.loads(line) for line in printed.getvalue().splitlines()] == random_documents(120, seed=1)
