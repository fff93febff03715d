"""Files of every format as examples, and one line for each file that cannot be used."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_shards.errors import DataError
from data_shards.tasks.examples import Answer

ROWS = [("A fine film.", "good"), ('He said "no", twice.', "bad"), ("Über schön 😀", "good")]


def csv_of(rows, separator=",") -> str:
    quoted = (separator.join('"' + value.replace('"', '""') + '"' for value in row) for row in [("review", "stars"), *rows])
    return "\n".join(quoted) + "\n"


@pytest.mark.parametrize("form", ["csv", "csv.gz", "semicolons.csv", "crlf.csv", "bom.csv", "tsv", "jsonl", "parquet"])
def test_every_table_gives_the_same_examples(read, write, tmp_path, form):
    name = f"data.{form}"
    more = {}
    if form == "parquet":
        path = str(tmp_path / name)
        pq.write_table(pa.table({"review": [text for text, _ in ROWS], "stars": [label for _, label in ROWS]}), path)
    elif form == "jsonl":
        path = write(name, "".join(json.dumps({"review": text, "more": {"review": 1}, "stars": label}) + "\n" for text, label in ROWS))
    elif form == "tsv":
        path = write(name, "review\tstars\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS))
    elif form == "csv.gz":
        path = write(name, gzip.compress(csv_of(ROWS).encode()))
    elif form == "semicolons.csv":
        path, more = write(name, csv_of(ROWS, ";")), {"separator": ";"}
    else:
        text = csv_of(ROWS)
        path = write(name, ("\ufeff" if form == "bom.csv" else "") + (text.replace("\n", "\r\n") if form == "crlf.csv" else text))
    train = read(kind="classification", train=path, columns={"text": "review", "label": "stars"}, **more).splits["train"]
    assert list(zip(train.texts, train.labels, strict=True)) == ROWS
    assert len(set(train.places)) == 3
    assert train.places[0].startswith(f"{path}:")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a header and rows, got an empty file"),
        ("text,label\n", "expected rows of train, got none"),
        ("txt,label\na,b\n", r"expected a column text, got columns txt, label \(did you mean txt\?\); set columns.text"),
        ("text;label\na;b\n", "set separator"),
        ("text,text,label\na,b,c\n", "expected one column text, got 2"),
        ("text,label\na,b\nc\n", "t.csv:3: expected 2 fields, as the first line has, got 1"),
        ('text,label\n"a,b\n', r"t.csv:2: expected CSV, got a quote that is not closed .*; repair the row, or set quoting none"),
        ("text,label\na,x\nb,\nc,y\n", r"t.csv:3: expected a label, got none \(1 such rows\)"),
        ("text,label\na,x\nb,x\n", "expected at least two labels in train, got x alone"),
        (b"text,label\na\xff,x\nb,y\n", "t.csv, byte 12: expected UTF-8, got byte 0xff"),
        ("text,label\na,x\nb,y\n".encode("utf-16"), "expected UTF-8, got UTF-16"),
        (b"PK\x03\x04rest", "got a zip archive"),
    ],
)
def test_a_csv_that_cannot_be_used_is_one_line(read, write, content, message):
    with pytest.raises(DataError, match=message) as error:
        read(kind="classification", train=write("t.csv", content))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n', "expected a column label, got columns text"),
        ('{"text": "a", "label": 1}\n{"text": "b"}\n', "t.jsonl:2: expected a column label"),
        ('{"text": 5, "label": 1}\n', "t.jsonl:1: expected text in column text, got int 5"),
        ('{"text": "a", "text": "b", "label": 1}\n', "t.jsonl:1: expected one field text, got 2"),
        ('{"text": "\\ud800", "label": 1}\n', "t.jsonl:1: expected UTF-8, got an unpaired surrogate"),
        ('"a"\n', "t.jsonl:1: expected one JSON object a line, got str"),
        ('{"a": ' * 100_000 + "\n", "nested too deeply"),
        ("[1, 2]\n", "t.jsonl:0: expected an object in the JSON list, got int"),
        ('[\n{"text": "a", "label": 1},\n{"text": "b"}\n]\n', "t.jsonl:1: expected a column label"),
        ("[\n1,\n", "expected JSON lines or a JSON list"),
        ("[" * 100_000 + "\n", "expected JSON lines or a JSON list"),
    ],
)
def test_json_that_cannot_be_used_is_one_line(read, write, content, message):
    with pytest.raises(DataError, match=message):
        read(kind="classification", train=write("t.jsonl", content))


def test_a_json_list_is_rows(read, write):
    path = write("t.json", json.dumps([{"text": "a", "label": 1}, {"text": "b", "label": 0}], indent=2))
    train = read(kind="classification", train=path).splits["train"]
    assert (train.texts, train.labels, train.places) == (["a", "b"], ["1", "0"], [f"{path}:0", f"{path}:1"])


def test_a_first_row_that_is_broken_is_dropped_like_any_other(read, write):
    path = write("t.jsonl", '{"text": \n{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n')
    assert read(kind="classification", train=path, on_bad_row="drop").splits["train"].texts == ["a", "b"]


def test_a_null_character_and_a_huge_field_are_text(read, write):
    huge = "word " * 400_000
    train = read(kind="classification", train=write("t.csv", f"text,label\na\0b,x\n{huge},y\n")).splits["train"]
    assert train.texts == ["a\0b", huge]


def test_a_file_without_a_header_has_columns_by_number(read, write):
    path = write("t.csv", "1,a b\n0,c\n")
    train = read(kind="classification", train=path, header=False, columns={"text": 1, "label": 0}).splits["train"]
    assert (train.texts, train.labels) == (["a b", "c"], ["1", "0"])
    with pytest.raises(DataError, match=r"expected a column text, got columns 0, 1; set columns.text to a number, as header is false"):
        read(kind="classification", train=path, header=False)


def test_bad_rows_are_dropped_and_counted_on_request(read, write):
    path = write("t.tsv", "text\tlabel\na\tx\nb\nc\tz\nd\t\ne\ty\n")
    data = read(kind="classification", train=path, labels=["x", "y"], on_bad_row="drop")
    assert data.splits["train"].texts == ["a", "e"]
    (line,) = [line for line in data.report.lines() if "bad rows" in line]
    assert "bad rows: 3, dropped (on_bad_row)" in line
    assert f"{path}:3: expected 2 fields" in line
    with pytest.raises(DataError, match=r"expected rows of train, got bad rows alone, the first: .*t.tsv:2: expected a label among q, r"):
        read(kind="classification", train=path, labels=["q", "r"], on_bad_row="drop")


def test_an_unknown_label_names_its_row_and_the_nearest_label(read, write):
    path = write("t.csv", "text,label\na,positive\nb,postive\n")
    with pytest.raises(DataError, match=r"t.csv:3: expected a label among negative, positive, got postive \(did you mean positive\?\)"):
        read(kind="classification", train=path, labels=["negative", "positive"])


def test_values_are_mapped_to_names(read, write):
    path = write("t.jsonl", '{"text": "a", "label": 0}\n{"text": "b", "label": 1.0}\n{"text": "c", "label": "1"}\n')
    data = read(kind="classification", train=path, labels=["no", "yes"], label_names={0: "no", 1: "yes"})
    assert data.splits["train"].labels == ["no", "yes", "yes"]


@pytest.mark.parametrize(("value", "label"), [("nan", None), ("inf", None), ("high", None), ("1e3", 1000.0), (" 2.5", 2.5)])
def test_a_target_is_a_finite_number(read, write, value, label):
    path = write("t.csv", f"text,label\na,1\nb,{value}\n")
    if label is None:
        with pytest.raises(DataError, match=f"t.csv:3: expected a number as label, got '{value}'"):
            read(kind="regression", train=path)
    else:
        assert read(kind="regression", train=path).splits["train"].labels == [1.0, label]


def test_several_labels_come_from_text_lists_or_columns(read, write):
    expected = [("x", "y"), (), ("y",)]
    text = write("t.csv", 'text,label\na,"x, y,x"\nb,\nc,y\n')
    lists = write("t.jsonl", "".join(json.dumps({"text": "a", "label": label}) + "\n" for label in (["x", "y"], [], ["y"])))
    columns = write("c.csv", "text,x,y\na,1,1\nb,0,0\nc,0,1\n")
    for path in (text, lists):
        assert read(kind="multi_label", train=path, labels=["x", "y"]).splits["train"].labels == expected
    data = read(kind="multi_label", train=columns, columns={"label": ["x", "y"]})
    assert data.splits["train"].labels == expected
    assert data.labels == ["x", "y"]
    with pytest.raises(DataError, match=r"c.csv:2: expected 0 or 1 in column text, got 'a'"):
        read(kind="multi_label", train=columns, columns={"label": ["text", "y"]})


def test_words_and_tags_come_from_lists(read, write):
    rows = [{"tokens": ["New", "York"], "ner_tags": ["B-LOC", "I-LOC"]}, {"tokens": ["rains"], "ner_tags": ["O"]}]
    train = read(kind="tagging", train=write("t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))).splits["train"]
    assert train.words == [["New", "York"], ["rains"]]
    assert train.labels == [["B-LOC", "I-LOC"], ["O"]]
    path = write("u.jsonl", json.dumps({"tokens": ["New", "York"], "ner_tags": ["O"]}) + "\n")
    with pytest.raises(DataError, match=r"u.jsonl:1: expected a tag for each of 2 words, got 1 tags"):
        read(kind="tagging", train=path)


def test_answers_come_from_the_hubs_columns(read, write):
    row = {"id": "q7", "question": "Who?", "context": "It was Ada.", "answers": {"text": ["Ada"], "answer_start": [7]}}
    none = {**row, "id": "q8", "answers": {"text": [], "answer_start": []}}
    train = read(
        kind="question_answering", train=write("t.jsonl", json.dumps(row) + "\n" + json.dumps(none) + "\n"), columns={"id": "id"}
    ).splits["train"]
    assert (train.labels, train.ids) == ([(Answer("Ada", 7),), ()], ["q7", "q8"])


@pytest.mark.parametrize(("start", "moved"), [(7, 0), (6, 1), (9, 1), (0, None), (99, None)])
def test_an_answer_beside_its_place_is_moved_and_one_elsewhere_refused(read, write, start, moved):
    row = {"question": "Who?", "context": "It was Ada.", "answers": {"text": ["Ada"], "answer_start": [start]}}
    path = write("t.jsonl", json.dumps(row) + "\n")
    if moved is None:
        with pytest.raises(DataError, match=f"t.jsonl:1: expected the answer 'Ada' at character {start} of its context"):
            read(kind="question_answering", train=path)
        return
    data = read(kind="question_answering", train=path)
    assert data.splits["train"].labels == [(Answer("Ada", 7),)]
    assert data.report.count("answers that start") == moved


def test_test_may_have_no_labels_and_unlabelled_needs_none(read, write):
    train = write("t.csv", "text,label\na,x\nb,y\n")
    data = read(kind="classification", train=train, test=write("u.csv", "text\nc\n"), unlabelled=write("v.txt", "one line\n\nanother\n"))
    assert data.splits["test"].labels is None
    assert data.splits["unlabelled"].texts == ["one line", "another"]
    half = write("w.csv", "text,label\nc,x\nd,\n")
    with pytest.raises(DataError, match=r"w.csv:3: expected a label, got none"):
        read(kind="classification", train=train, test=half)


def test_unlabelled_files_have_their_own_format_and_columns(read, write, cola):
    path = write("u.jsonl", '{"sentence": "new text"}\n')
    data = read(preset="glue/cola", folder=cola, unlabelled=path, unlabelled_columns={"text": "sentence"})
    assert data.splits["unlabelled"].texts == ["new text"]
    assert set(data.splits) == {"train", "dev", "unlabelled"}
    pairs = write("p.csv", "text,text_pair,label\na,b,x\nc,d,y\n")
    with pytest.raises(DataError, match="expected rows with the columns of classification, got lines of text"):
        read(kind="classification", train=pairs, columns={"text_pair": "text_pair"}, unlabelled=write("u.txt", "a\n"))


def test_several_files_and_globs_are_one_split(read, write, tmp_path):
    write("a1.csv", "text,label\na,x\n")
    write("a2.csv", "label,text\ny,b\n")
    other = write("b.jsonl", '{"text": "c", "label": "x"}\n')
    data = read(kind="classification", train=[str(tmp_path / "a*.csv"), other])
    assert (data.splits["train"].texts, data.splits["train"].labels) == (["a", "b", "c"], ["x", "y", "x"])
    with pytest.raises(DataError, match="expected files that match, got none"):
        read(kind="classification", train=str(tmp_path / "z*.csv"))
    with pytest.raises(DataError, match="expected an ending such as"):
        read(kind="classification", train=write("data.bin", "x"))


def test_lists_that_csv_spells_are_lists(read, write):
    path = write("t.csv", """text,label\na,"['x', 'y']"\nb,[]\nc,"[""y""]"\n""")
    assert read(kind="multi_label", train=path).splits["train"].labels == [("x", "y"), (), ("y",)]
    path = write("u.csv", """tokens,ner_tags\n"['New', 'York']","['B', 'I']"\nin it,O O\n""")
    assert read(kind="tagging", train=path).splits["train"].words == [["New", "York"], ["in", "it"]]


def test_folders_of_texts_are_labels(read, write, tmp_path):
    for name in ("neg/0_1.txt", "neg/1_2.txt", "pos/0_9.txt", "pos/1_8.txt", "unsup/0_0.txt"):
        write(f"aclImdb/train/{name}", f"A film,\nsaid {name}.\n")
    write("aclImdb/test/pos/0_9.txt", "Good.")
    write("aclImdb/test/neg/0_1.txt", "Bad.")
    data = read(preset="imdb", folder=str(tmp_path / "aclImdb"))
    assert sorted(data.splits["train"].labels + data.splits["dev"].labels) == ["negative"] * 2 + ["positive"] * 2
    assert data.splits["test"].texts == ["Bad.", "Good."]
    assert data.splits["unlabelled"].texts == ["A film,\nsaid unsup/0_0.txt."]
    train = read(kind="classification", train=str(tmp_path / "aclImdb/train/*/*.txt")).splits["train"]
    assert train.labels == ["neg", "neg", "pos", "pos", "unsup"]


def test_files_that_a_folder_leaves_out_are_in_the_report(read, write, tmp_path):
    write("d/a.csv", "text,label\na,x\nb,y\n")
    write("d/a.bin", "x")
    (line,) = [line for line in read(kind="classification", train=str(tmp_path / "d")).report.lines() if "left out" in line]
    assert line == f"train: files of a folder or pattern: 1, left out; first: {tmp_path}/d/a.bin (unknown ending .bin)"


def test_a_first_line_that_is_a_row_gets_a_hint(read, write):
    with pytest.raises(DataError, match=r"or set header to false if the first line is a row"):
        read(kind="classification", train=write("t.tsv", f"{'long ' * 50}\t1\nb\t0\n"))


def test_max_rows_takes_a_sample_and_says_so(read, write):
    path = write("t.csv", "text,label\n" + "".join(f"row {n},{'x' if n < 50 else 'y'}\n" for n in range(100)))
    data = read(kind="classification", train=path, max_rows=20)
    numbers = [int(text.split()[1]) for text in data.splits["train"].texts]
    assert len(numbers) == 20
    assert numbers == sorted(numbers)
    assert set(data.splits["train"].labels) == {"x", "y"}
    assert "train: sample of the rows (max_rows): 20 of 100" in data.report.lines()
