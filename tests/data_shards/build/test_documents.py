"""Which documents are kept: counted, dealt by a hash of the text alone."""

import json

from data_shards.build.documents import Selection
from data_shards.sources.settings import SourceSettings


def select(path, heldout=0.0, seed=1, drop_duplicates=False, max_documents=None) -> tuple[Selection, list]:
    selection = Selection((SourceSettings(path=str(path)),), heldout, seed, drop_duplicates, max_documents)
    return selection, list(selection.kept())


def test_empty_documents_are_dropped_and_counted(corpus):
    selection, kept = select(corpus)
    assert (selection.read, selection.empty, selection.duplicate, len(kept)) == (302, 2, 0, 300)


def test_duplicates_are_dropped_on_request(corpus, texts):
    selection, kept = select(corpus, drop_duplicates=True)
    assert (selection.duplicate, len(kept)) == (1, 299)
    assert [document.text.decode() for document in kept] == texts[:-1]


def test_the_held_out_share_is_kept_and_depends_on_text_and_seed_alone(tmp_path):
    texts = [f"document {number}" for number in range(20_000)]
    path, backwards = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for target, order in ((path, texts), (backwards, texts[::-1])):
        target.write_text("".join(json.dumps({"text": text}) + "\n" for text in order))
    held = [
        {document.text for document in select(*arguments)[1] if document.split == "heldout"}
        for arguments in ((path, 0.1), (backwards, 0.1))
    ]
    assert held[0] == held[1]
    assert abs(len(held[0]) / 20_000 - 0.1) < 5 * (0.09 / 20_000) ** 0.5
    other = {document.text for document in select(path, 0.1, seed=2)[1] if document.split == "heldout"}
    assert abs(len(held[0] & other) / 20_000 - 0.01) < 5 * (0.01 / 20_000) ** 0.5


def test_equal_texts_stand_in_the_same_split(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"document {number % 50}"}) + "\n" for number in range(100)))
    splits = [document.split for document in select(path, 0.5)[1]]
    assert splits[:50] == splits[50:]
    assert {"train", "heldout"} == set(splits)


def test_reading_stops_at_the_greatest_number_of_documents(corpus):
    selection, kept = select(corpus, max_documents=150)
    assert len(kept) == 150
    assert selection.read == 151, "one empty document among them"
