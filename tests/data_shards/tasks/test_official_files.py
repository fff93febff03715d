"""The official files: row counts, overlap, and the rows that a quote-aware reader loses. They are read where STILLHOUSE_DATA points to."""

import csv
import os
from pathlib import Path

import pytest

from data_shards.tasks.settings import TaskDataSettings

DATA = Path(os.environ.get("STILLHOUSE_DATA", ""))
FOLDERS = {"cola": "CoLA", "mrpc": "MRPC", "rte": "RTE", "sst2": "SST-2", "stsb": "STS-B", "wnli": "WNLI"}

pytestmark = pytest.mark.skipif(
    not (DATA / "glue").is_dir() or not os.environ.get("STILLHOUSE_DATA"),
    reason="STILLHOUSE_DATA does not name a folder with glue/, conll2003/ and squad/ (the official files)",
)


@pytest.mark.parametrize(
    ("name", "train", "dev", "overlap"),
    [
        ("cola", 8551, 1043, 16),
        ("mrpc", 3667, 408, 0),
        ("rte", 2490, 277, 0),
        ("sst2", 67349, 872, 0),
        ("stsb", 5749, 1500, 6),
        ("wnli", 635, 71, 0),
    ],
)
def test_glue_has_every_row(read, name, train, dev, overlap):
    data = read(preset=f"glue/{name}", folder=str(DATA / "glue" / FOLDERS[name]))
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": train, "dev": dev}
    assert data.report.count("rows that are also in train", "dev") == overlap


@pytest.mark.parametrize(("name", "lost"), [("MRPC", 116), ("STS-B", 68)])
def test_a_reader_that_takes_quotes_for_quotes_loses_rows(name, lost):
    """Why the presets set quoting to none."""
    missing = 0
    for split in ("train", "dev"):
        path = DATA / "glue" / name / f"{split}.tsv"
        with path.open(encoding="utf-8-sig", newline="") as file:
            missing += path.read_bytes().count(b"\n") - sum(1 for _ in csv.reader(file, delimiter="\t"))
    assert missing == lost


def test_dropping_the_overlap_leaves_dev_whole(read):
    data = read(preset="glue/cola", folder=str(DATA / "glue/CoLA"), drop_overlap=True)
    assert len(data.splits["dev"]) == 1043
    assert not set(data.splits["train"].inputs()) & set(data.splits["dev"].inputs())


def test_conll_has_every_sentence(read):
    data = read(preset="conll2003", folder=str(DATA / "conll2003"))
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 7020, "dev": 1625, "test": 1726}


def test_squad_has_every_question_with_its_answer_in_place(read):
    path = str(DATA / "squad/xquad.en.json")
    dev = read(**TaskDataSettings(preset="squad", dev=path).model_dump()).splits["dev"]
    assert len(dev) == 1190
    for context, (answer, *_) in zip(dev.pairs, dev.labels, strict=True):
        assert context[answer.start :].startswith(answer.text)
