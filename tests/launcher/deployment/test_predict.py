"""`stillhouse predict`: one line for each text in the input's order, the same from a Hugging Face folder and from its export."""

import io
import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from kd.models.config import quiet_transformers
from kd.tasks.model import MODEL_CLASSES, set_labels
from launcher.commands.parser import parser
from launcher.deployment.export import run as export
from launcher.deployment.prediction.inputs import _texts, read_texts
from launcher.deployment.prediction.predict import predictions, run
from launcher.deployment.prediction.served import serve
from launcher.errors import LaunchError

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
LABELS = {"classification": ["long", "short"], "multi_label": ["a", "b", "c"], "tagging": ["O", "B-X"]}


@pytest.fixture(scope="module")
def model(corpus, tmp_path_factory):
    """model(kind): a folder with a random head of this kind."""

    def make(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        config = AutoConfig.from_pretrained(corpus.model)
        set_labels(config, kind, LABELS.get(kind, []))
        with quiet_transformers():
            MODEL_CLASSES[kind].from_config(config).save_pretrained(folder)
            AutoTokenizer.from_pretrained(corpus.model).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def predict(capsys):
    def call(*words) -> list[dict]:
        assert run(parser().parse_args(["predict", *map(str, words)])) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def test_an_exported_folder_gives_what_its_original_gives(corpus, model, predict, tmp_path, capsys):
    folder = model("classification")
    (tmp_path / "in.txt").write_text("\n".join(text[:100] for text in corpus.texts[:70]) + "\n")
    export(parser().parse_args(["export", str(folder), "--out", str(tmp_path / "out")]))
    capsys.readouterr()
    original, exported = (predict(one, tmp_path / "in.txt", "--batch", 4) for one in (folder, tmp_path / "out"))
    assert [line["text"] for line in exported] == [text[:100] for text in corpus.texts[:70]]
    assert [line["label"] for line in exported] == [line["label"] for line in original]
    assert [line["score"] for line in exported] == pytest.approx([line["score"] for line in original], abs=5e-6)  # six decimals are written
    assert set(exported[0]) == {"text", "label", "score"}


def test_masks_are_filled(corpus, predict, tmp_path):
    (tmp_path / "in.txt").write_text("the [MASK] river\n\nher [MASK] [MASK]\n")
    one, two = predict(corpus.model, tmp_path / "in.txt", "--top", 3)
    assert [len(one["fills"]), len(two["fills"]), len(one["fills"][0])] == [1, 2, 3]
    assert one["label"] == one["fills"][0][0]["token"]
    scores = [fill["score"] for fill in one["fills"][0]]
    assert scores == sorted(scores, reverse=True)


def test_tags_come_by_word(model, predict, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"words": ["the", "winter", "road"]}\n{"text": "seven barrels"}\n')
    first, second = predict(model("tagging"), tmp_path / "in.jsonl")
    assert first["words"] == ["the", "winter", "road"]
    assert len(first["label"]) == len(first["score"]) == 3
    assert second["words"] == ["seven", "barrels"]


def test_answers_are_text_of_the_context(model, predict, tmp_path):
    (tmp_path / "in.csv").write_text('question,context\nthe miller,"seven barrels, before dawn"\n')
    (line,) = predict(model("question_answering"), tmp_path / "in.csv")
    assert line["label"]
    assert line["label"] in "seven barrels, before dawn"


def test_several_labels_and_a_number(model, predict, tmp_path):
    (tmp_path / "in.tsv").write_text('text\tother\nthe "miller\tseven\n')
    (several,) = predict(model("multi_label"), tmp_path / "in.tsv")
    assert set(several["label"]) <= {"a", "b", "c"}
    assert len(several["label"]) == len(several["score"])
    (number,) = predict(model("regression"), tmp_path / "in.tsv", "--pair-column", "other")
    assert set(number) == {"text", "pair", "score"}


def test_a_window_is_answered_before_the_next_is_read(corpus, model):
    served = serve(str(model("classification")))
    read = []

    def texts():
        for number in range(100):
            read.append(number)
            yield from read_texts_of("the miller")

    next(predictions(served, texts(), batch=2))
    assert len(read) == 2 * 16


def read_texts_of(text: str):
    return _texts(io.StringIO(text), "x", "lines", "text", None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": 3}\n', r"a\.jsonl:2: expected a text in text, got 3; columns: text"),
        ("a.jsonl", '{"text"\n', r"a\.jsonl:1: expected a JSON object, got .*; correct the line"),
        ("a.csv", "sentence\nx\n", r"a\.csv:2: expected a text in text, got no such column; columns: sentence"),
    ],
)
def test_bad_input_is_one_line_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(LaunchError, match=message):
        list(read_texts(str(tmp_path / name), name.partition(".")[2], "text", None))


def test_a_text_without_a_mask_and_a_missing_file_are_one_line(corpus, predict, tmp_path):
    (tmp_path / "in.txt").write_text("the miller\n")
    with pytest.raises(LaunchError, match=r"in\.txt:1: expected \[MASK\] in the text, got none; put it where a word is missing"):
        predict(corpus.model, tmp_path / "in.txt")
    with pytest.raises(LaunchError, match=r"none\.txt: expected a readable text file in UTF-8, got .*; correct the path"):
        predict(corpus.model, tmp_path / "none.txt")
