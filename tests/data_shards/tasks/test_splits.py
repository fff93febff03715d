"""Splits are checked against each other and against themselves, and every finding is counted."""

import pytest

from data_shards.errors import DataError
from data_shards.tasks.examples import Examples
from data_shards.tasks.splits import hold_out


@pytest.fixture
def pair(write):
    """pair(train, dev) -> settings of two csv files with these rows (text, label)."""

    def make(train, dev, **more):
        paths = {
            name: write(f"{name}.csv", "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
            for name, rows in (("train", train), ("dev", dev))
            if rows
        }
        return {"kind": "classification", **paths, **more}

    return make


TRAIN = [("a", "x"), ("b", "y"), ("a", "x"), ("c", "y"), ("b", "x"), ("d", "x")]
DEV = [("c", "y"), ("e", "x"), ("e", "x")]


def test_overlap_and_duplicates_are_counted_and_kept(read, pair):
    data = read(**pair(TRAIN, DEV))
    assert len(data.splits["train"]) == 6
    assert data.report.count("duplicate rows", "train") == 2
    assert data.report.count("rows with the text of an earlier row and another label", "train") == 1
    assert data.report.count("duplicate rows", "dev") == 1
    assert data.report.count("rows that are also in train", "dev") == 1


def test_overlap_and_duplicates_are_dropped_from_train_alone(read, pair):
    data = read(**pair(TRAIN, DEV, drop_overlap=True, drop_duplicates=True))
    assert data.splits["train"].texts == ["a", "b", "d"]
    assert data.splits["dev"].texts == ["c", "e", "e"]
    assert "dev: rows that are also in train: 1, dropped from train (drop_overlap); first: " in "\n".join(data.report.lines())


def test_train_that_is_all_in_dev_cannot_be_dropped(read, pair):
    with pytest.raises(DataError, match="expected rows of train that are not in dev, got none"):
        read(**pair([("a", "x"), ("b", "y")], [("a", "x"), ("b", "y")], drop_overlap=True))


def test_empty_rows_are_dropped_from_train_and_kept_in_dev(read, pair):
    data = read(**pair([("a", "x"), (" ", "y"), ("b", "y")], [("", "x"), ("e", "y")]))
    assert data.splits["train"].texts == ["a", "b"]
    assert len(data.splits["dev"]) == 2
    assert (data.report.count("empty rows", "train"), data.report.count("empty rows", "dev")) == (1, 1)


def test_labels_of_one_split_only_are_said(read, pair):
    data = read(**pair([("a", "x"), ("b", "y")], [("c", "z"), ("d", "x")]))
    assert data.labels == ["x", "y", "z"]
    lines = data.report.lines()
    assert "train: no row has the label z, which other splits have" in lines
    assert "dev: no row has the label y, which other splits have" in lines


def test_the_order_of_labels_is_that_of_names_or_numbers_and_is_said(read, pair):
    data = read(**pair([("a", "10"), ("b", "9")], None))
    assert data.labels == ["9", "10"]
    assert any("the order is that of the sorted names, 9, 10" in line for line in data.report.lines())


def test_a_column_of_texts_is_no_label(read, pair):
    with pytest.raises(DataError, match="expected a few labels, got 60 in 60 rows"):
        read(**pair([(f"a{n}", f"b{n}") for n in range(60)], None))


def test_constant_targets_are_refused(read, write):
    with pytest.raises(DataError, match="expected different targets in train"):
        read(kind="regression", train=write("t.csv", "text,label\na,1\nb,1.0\n"))


def test_a_part_of_train_becomes_dev(read, pair):
    rows = [(f"text {n}", "xy"[n % 2]) for n in range(200)]
    data = read(**pair(rows, None, dev_fraction=0.1))
    assert (len(data.splits["train"]), len(data.splits["dev"])) == (180, 20)
    other = read(**pair(list(reversed(rows)), None, dev_fraction=0.1))
    assert set(other.splits["dev"].texts) == set(data.splits["dev"].texts)
    assert set(read(**pair(rows, None, dev_fraction=0.1, split_seed=1)).splits["dev"].texts) != set(data.splits["dev"].texts)
    assert any("rows of train that became dev (dev_fraction), split by text: 20" in line for line in data.report.lines())


def test_each_label_gives_its_share(read, pair):
    data = read(**pair([(f"text {n}", "rare" if n % 20 == 0 else "often") for n in range(400)], None, dev_fraction=0.1))
    assert data.splits["dev"].labels.count("rare") == 2
    assert data.splits["dev"].labels.count("often") == 38


def test_rows_of_one_text_stay_together_whatever_their_labels(read, pair):
    data = read(**pair([(f"text {n % 50}", "xy"[n // 50]) for n in range(100)], None, dev_fraction=0.2))
    assert not set(data.splits["train"].texts) & set(data.splits["dev"].texts)
    assert len(data.splits["dev"]) == 20


def test_rows_of_one_group_stay_on_one_side(read, write):
    rows = "".join(f"text {n},{'xy'[n % 2]},film {n // 5}\n" for n in range(200))
    data = read(kind="classification", train=write("t.csv", "text,label,film\n" + rows), dev_fraction=0.2, split_by="film")
    train, dev = (set(data.splits[split].groups) for split in ("train", "dev"))
    assert not train & dev
    assert len(data.splits["dev"]) == 40


def test_one_group_cannot_be_split():
    examples = Examples("train", "classification", ["a", "b"], labels=["x", "y"], groups=["g", "g"], ids=["0", "1"], places=["f:1", "f:2"])
    with pytest.raises(DataError, match="dev_fraction: expected rows for train and dev, got 1 groups for both"):
        hold_out(examples, 0.5, 0)


def test_the_digest_follows_content_and_not_places(read, pair, tmp_path):
    data = read(**pair(TRAIN, DEV))
    same = read(**{**pair(TRAIN, DEV), "train": [str(tmp_path / "train.csv")]})
    assert data.digest() == same.digest()
    assert read(**pair([*TRAIN[:-1], ("d", "y")], DEV)).digest() != data.digest()
