"""CoNLL files with tabs or blanks, with more columns, and with IOB1 tags."""

import pytest

from data_shards.errors import DataError

OFFICIAL = """-DOCSTART- -X- -X- O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
Anna NNP I-NP B-PER
"""


def test_words_are_first_and_tags_last_and_iob1_becomes_bio(read, write):
    data = read(kind="tagging", train=write("eng.txt", OFFICIAL))
    train = data.splits["train"]
    assert train.words == [["EU", "rejects", "German", "call"], ["Peter", "Blackburn", "Anna"]]
    assert train.labels == [["B-ORG", "O", "B-MISC", "O"], ["B-PER", "I-PER", "B-PER"]]
    assert [place.rpartition(":")[2] for place in train.places] == ["3", "8"]
    assert data.report.count("sentences with IOB1 tags") == 2
    assert data.labels[0] == "O"


def test_bio_stays_and_an_odd_tag_is_counted(read, write):
    path = write("t.conll", "Peter\tB-PER\nLee\tI-PER\n\nin\tO\nYork\tI-LOC\n\nnow\tO\n")
    data = read(kind="tagging", train=path)
    assert data.splits["train"].labels == [["B-PER", "I-PER"], ["O", "I-LOC"], ["O"]]
    assert data.report.count("sentences with an I- tag that continues no entity") == 1
    assert data.report.count("sentences with IOB1") == 0


def test_iobes_stays_as_it_is(read, write):
    data = read(kind="tagging", train=write("t.conll", "A S-PER\nB O\n\nC B-LOC\nD E-LOC\n"))
    assert data.splits["train"].labels == [["S-PER", "O"], ["B-LOC", "E-LOC"]]
    assert not [line for line in data.report.lines() if "IOB1" in line]


def test_columns_by_number(read, write):
    data = read(kind="tagging", train=write("t.conll", "1 EU NNP X\n2 is VBZ X\n"), columns={"words": 1, "tags": 2}, tag_scheme="raw")
    assert (data.splits["train"].words, data.splits["train"].labels) == ([["EU", "is"]], [["NNP", "VBZ"]])


def test_a_blank_inside_a_word_stays_where_tabs_separate(read, write):
    data = read(kind="tagging", train=write("t.conll", "New York\tB-LOC\n20 000\tO\n"))
    assert data.splits["train"].words == [["New York", "20 000"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("EU B-ORG\nrejects\n", "t.conll:2: expected a word and its tag, got 'rejects'"),
        ("EU B-ORG\nx\tX-ORG\n", "expected a tag among O, B-ORG, got X-ORG"),
        (b"EU O\n\xff O\n", "byte 5: expected UTF-8"),
        ("\n\n", "expected rows of train, got none"),
    ],
)
def test_a_bad_line_is_one_error_and_its_sentence_can_be_dropped(read, write, content, message):
    path = write("t.conll", content)
    with pytest.raises(DataError, match=message):
        read(kind="tagging", train=path, labels=["O", "B-ORG"])
    if "among" not in message and "none" not in message:
        good = write("t.conll", (content if isinstance(content, bytes) else content.encode()) + b"\nok O\nEU B-ORG\n")
        data = read(kind="tagging", train=good, labels=["O", "B-ORG"], on_bad_row="drop")
        assert data.splits["train"].words == [["ok", "EU"]]


def test_words_alone_are_unlabelled(read, write):
    train = write("t.conll", "EU B-ORG\nis O\n")
    data = read(kind="tagging", train=train, unlabelled=write("u.conll", "One\ntwo\n\nthree\n"))
    assert data.splits["unlabelled"].words == [["One", "two"], ["three"]]
    assert data.splits["unlabelled"].labels is None


def test_a_conll_file_of_another_kind_is_refused(read, write):
    with pytest.raises(DataError, match="expected kind tagging for a CoNLL file, got classification"):
        read(kind="classification", train=write("t.conll", "a b\n"), format="conll")


UNIVERSAL = """# sent_id = 1
# text = Vámonos al mar
1-2\tVámonos\t_\t_\t_
1\tVamos\tir\tVERB\t_
2\tnos\tnosotros\tPRON\t_
3-4\tal\t_\t_\t_
3\ta\ta\tADP\t_
4\tel\tel\tDET\t_
5\tmar\tmar\tNOUN\t_
5.1\tya\tya\tADV\t_

# sent_id = 2
1\t#1\t#1\tSYM\t_
"""


def test_universal_dependencies(read, write):
    train = read(kind="tagging", train=write("t.conllu", UNIVERSAL)).splits["train"]
    assert train.words == [["Vamos", "nos", "a", "el", "mar"], ["#1"]]
    assert train.labels == [["VERB", "PRON", "ADP", "DET", "NOUN"], ["SYM"]]
    lemmas = read(kind="tagging", train=write("t.conllu", UNIVERSAL), columns={"words": 2, "tags": 3}).splits["train"]
    assert lemmas.words[0][0] == "ir"


def test_comments_are_left_out_on_request(read, write):
    path = write("t.conll", "# id 5\tx\nEU\tB-ORG\n#\tO\n")
    assert read(kind="tagging", train=path, tag_scheme="raw").splits["train"].words == [["# id 5", "EU", "#"]]
    assert read(kind="tagging", train=path, comment="# ").splits["train"].words == [["EU", "#"]]
