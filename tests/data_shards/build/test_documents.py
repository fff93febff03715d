"""The documents that are kept: counted, dealt to splits by a hash of the text alone."""

import json
from pathlib import Path

from data_shards.build.documents import EMPTY, Selection, SplitRule
from data_shards.build.settings import BuildSettings
from data_shards.storage.manifest import SPLITS


def select(path: Path, **changes: object) -> tuple[Selection, list[tuple[str, str]]]:
    """The selection after all documents were read, and (text, split) of each kept one."""
    values = {"sources": [{"path": str(path)}], "tokenizer": "t", "heldout": 0.0}
    selection = Selection(BuildSettings.model_validate(values | changes))
    return selection, [(text.decode(), SPLITS[split]) for text, split, _ in selection.documents()]


def test_empty_documents_are_dropped_and_counted(corpus):
    selection, kept = select(corpus)
    assert (selection.read, selection.empty, selection.duplicate, selection.kept, len(kept)) == (302, 2, 0, 300, 300)


def test_duplicates_are_dropped_on_request(corpus, texts):
    selection, kept = select(corpus, drop_duplicates=True)
    assert (selection.duplicate, len(kept)) == (1, 299)
    assert [text for text, _ in kept] == texts[:-1]


def test_the_held_out_share_is_kept_and_depends_on_text_and_seed_alone(tmp_path):
    texts = [f"document {number}" for number in range(20_000)]
    path, backwards = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for target, order in ((path, texts), (backwards, texts[::-1])):
        target.write_text("".join(json.dumps({"text": text}) + "\n" for text in order))
    first, second, other = (
        {text for text, split in select(source, heldout=0.1, seed=seed)[1] if split == "heldout"}
        for source, seed in ((path, 1), (backwards, 1), (path, 2))
    )
    assert first == second
    assert abs(len(first) / 20_000 - 0.1) < 5 * (0.09 / 20_000) ** 0.5
    assert abs(len(first & other) / 20_000 - 0.01) < 5 * (0.01 / 20_000) ** 0.5


def test_equal_texts_are_in_the_same_split(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"document {number % 50}"}) + "\n" for number in range(100)))
    splits = [split for _, split in select(path, heldout=0.5)[1]]
    assert splits[:50] == splits[50:]
    assert {"train", "heldout"} == set(splits)


def test_reading_stops_at_the_greatest_number_of_documents(corpus):
    selection, kept = select(corpus, max_documents=150)
    assert (len(kept), selection.complete) == (150, True)
    assert selection.read == 151, "one empty document among them"


def test_a_text_without_characters_has_no_split():
    rule = SplitRule(BuildSettings.model_validate({"sources": [{"path": "p"}], "tokenizer": "t"}))
    assert rule(b" \n") == (EMPTY, bytes(16))
    assert rule(b"amber")[0] == SPLITS.index("train")
