"""Mistakes in the files of a task, by `stillhouse task data`: refused in one line, or counted with their places."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.commands.parser import parser
from launcher.tasks import data
from stillhouse.errors import StillhouseError

pytestmark = pytest.mark.slow
TRAIN = [{"text": f"ba de {word}", "label": label} for word, label in (("fi", "good"), ("go", "bad"), ("lu", "good"), ("mer", "bad"))]
DEV = [{"text": f"nor {word}", "label": label} for word, label in (("fi", "good"), ("go", "bad"))]
SHORT_QUESTIONS = ("data.format=squad", "data.max_question=16", "data.window_overlap=16")
Told = Callable[..., str]


def lines(*rows: dict) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def question(answer: str, start: int) -> bytes:
    asked = {"id": "1", "question": "ba", "answers": [{"text": answer, "answer_start": start}]}
    return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "ba de fi go", "qas": [asked]}]}]}).encode()


@pytest.fixture
def told(school, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    """told(kind, train, dev, *settings): the output of `stillhouse task data`."""
    config = tmp_path / "task.yaml"
    config.write_text("run: {folder: x}\ndata: {kind: classification}\ntrain: {global_batch: 8, micro_batch: 8, epochs: 1}\n")

    def run(kind: str, train: bytes, dev: bytes, *settings: str) -> str:
        (tmp_path / "train.jsonl").write_bytes(train)
        (tmp_path / "dev.jsonl").write_bytes(dev)
        files = [f"data.kind={kind}", f"data.train={tmp_path}/train.jsonl", f"data.dev={tmp_path}/dev.jsonl", "data.max_length=64"]
        words = ["task", "data", "--config", str(config), *files, f"student.init={school.teacher}", *settings]
        assert data.run(parser().parse_args(words)) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("kind", "train", "dev", "settings", "message"),
    [
        ("classification", lines(*TRAIN), lines(*DEV), ["data.columns.label=stars"], "expected a column stars, got columns text, label"),
        (
            "classification",
            lines(*[row | {"label": "good"} for row in TRAIN]),
            lines(*[row | {"label": "good"} for row in DEV]),
            [],
            "train.jsonl:1: expected at least two labels in train, got good alone; check the column",
        ),
        (
            "regression",
            b'{"text": "ba", "label": 0.5}\n{"text": "de", "label": NaN}\n',
            lines({"text": "fi", "label": 1.0}),
            [],
            "train.jsonl:2: expected a number as label, got nan; correct the row, or set on_bad_row to drop",
        ),
        (
            "regression",
            lines(*[{"text": text, "label": 1} for text in ("ba", "de")]),
            lines({"text": "fi", "label": 1}),
            [],
            "train.jsonl:1: expected different targets in train, got 1 in every row; check the column",
        ),
        (
            "question_answering",
            question("lu", 3),
            question("de", 3),
            list(SHORT_QUESTIONS),
            "question 1: expected the answer 'lu' at character 3 of its context, got 'de'; repair the row, or set on_bad_row to drop",
        ),
    ],
    ids=["column", "one class", "NaN", "one target", "answer"],
)
def test_data_that_cannot_teach_is_refused_in_one_line(told: Told, kind, train, dev, settings, message):
    with pytest.raises(StillhouseError, match="expected") as error:
        told(kind, train, dev, *settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_label_of_one_split_only_is_said(told: Told, split: str):
    more = lines({"text": "pel", "label": "ugly"})
    shown = told("classification", lines(*TRAIN) + more * (split == "train"), lines(*DEV) + more * (split == "dev"))
    other = "dev" if split == "train" else "train"
    assert f"{other}: no row has the label ugly, which other splits have" in shown


def test_empty_and_duplicate_rows_and_overlap_are_counted_with_their_places(told: Told):
    train = lines(*TRAIN, TRAIN[0], {"text": "  ", "label": "good"})
    shown = told("classification", train, lines(*DEV, TRAIN[1]))
    assert "train: empty rows: 1, dropped; first: " in shown
    assert "train: duplicate rows: 1, kept; first: " in shown
    assert "dev: rows that are also in train: 1, kept (drop_overlap drops them from train); first: " in shown
    shown = told("classification", train, lines(*DEV, TRAIN[1]), "data.drop_overlap=true", "data.drop_duplicates=true")
    assert "train: duplicate rows: 1, dropped (drop_duplicates)" in shown
    assert "1, dropped from train (drop_overlap)" in shown


def test_a_byte_order_mark_is_no_part_of_the_first_row(told: Told):
    assert told("classification", b"\xef\xbb\xbf" + lines(*TRAIN), lines(*DEV)) == told("classification", lines(*TRAIN), lines(*DEV))


def test_the_header_of_colas_test_file_is_no_sentence(told: Told, tmp_path: Path):
    """Of the official files of CoLA, train and dev have no header, and test has one, no label and other columns."""
    for name, rows in (("train", TRAIN), ("dev", DEV)):
        fields = [("x01", str(int(row["label"] == "good")), "", row["text"]) for row in rows]
        (tmp_path / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in fields))
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tsto ten\n1\tqua ris\n")
    official = [f"data.folder={tmp_path}", "data.preset=glue/cola", "data.train=null", "data.dev=null", "teacher.model=x"]
    unlabelled = [f"data.unlabelled={tmp_path}/test.tsv", "data.unlabelled_columns={text: sentence}"]
    shown = told("classification", b"", b"", *official, *unlabelled)
    rows = {words[0]: words[1] for line in shown.splitlines() if len(words := line.split()) > 5}
    assert (rows["train"], rows["dev"], rows["unlabelled"]) == ("4", "2", "2")
