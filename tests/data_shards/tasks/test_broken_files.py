"""A thousand broken task files: each gives examples or one line, never a traceback."""

import json
import random

import pytest

from data_shards.errors import DataError
from data_shards.tasks.describe import describe

ANSWERS = {"text": ["Ada"], "answer_start": [0]}
ROW = {"text": "a", "label": 1, "tokens": ["a", "b"], "ner_tags": ["O", "B-X"], "question": "q", "context": "Ada b", "answers": ANSWERS}
QUESTION = {"id": "1", "question": "q", "answers": [{"text": "Ada", "answer_start": 0}]}
GOOD = {
    "csv": 'text,label\n"a, b",1\n"c ""d""",2\ne,1\n',
    "tsv": 'text\tlabel\na\t1\nc"\t2\n',
    "jsonl": json.dumps(ROW) + "\n" + json.dumps({**ROW, "label": 0, "answers": []}) + "\n",
    "conll": "-DOCSTART- O\n\nEU B-ORG\nis O\n\nX\tI-PER\n",
    "json": json.dumps({"data": [{"paragraphs": [{"context": "Ada b", "qas": [QUESTION]}]}]}),
}
KINDS = ("classification", "multi_label", "regression", "tagging", "question_answering")
NOISE = (b"\0", b"\xff", b'"', b"\n", b"\r", b"\t", b",", b"[", b"{", b"}", b"\xef\xbb\xbf")
WORDS = (b"NaN", b"null", b"1e999", b"\\ud800", b"-1", b"true")


def broken(content: bytes, draw: random.Random) -> bytes:
    """The content with up to three stretches left out, doubled, or replaced by characters that formats give a meaning."""
    data = bytearray(content)
    for _ in range(draw.randint(0, 3)):
        at = draw.randrange(len(data) + 1)
        put = (draw.choice(NOISE), draw.choice(WORDS), b"", bytes(data[max(0, at - 20) : at]))
        data[at : at + draw.choice((0, 0, 1, 7))] = draw.choice(put)
    return bytes(data)


@pytest.mark.parametrize("form", GOOD)
@pytest.mark.parametrize("on_bad_row", ["error", "drop"])
def test_a_broken_file_is_read_or_refused_in_one_line(read, write, form, on_bad_row):
    draw = random.Random(f"{form}{on_bad_row}")
    kinds = {"conll": ("tagging",), "json": ("question_answering",)}.get(form, KINDS)
    answered, refusals = 0, []
    for _ in range(100):
        path = write(f"t.{form}", broken(GOOD[form].encode(), draw))
        try:
            describe(read(kind=draw.choice(kinds), train=path, on_bad_row=on_bad_row))
            answered += 1
        except DataError as error:
            refusals.append(str(error))
    assert [line for line in refusals if "\n" in line or "; " not in line] == []
    assert min(answered, len(refusals)) > 5
