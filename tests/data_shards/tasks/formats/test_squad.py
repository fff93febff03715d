"""SQuAD files, versions 1.1 and 2.0."""

import json

import pytest

from data_shards.errors import DataError
from data_shards.tasks.examples import Answer

CONTEXT = "Ada Lovelace wrote the first program in 1843."


def squad(*questions, context=CONTEXT) -> str:
    return json.dumps({"version": "v2.0", "data": [{"title": "Ada", "paragraphs": [{"context": context, "qas": list(questions)}]}]})


def question(name, *answers, **more) -> dict:
    found = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": f"Question {name}?", "answers": found, **more}


def test_questions_with_several_answers_and_without(read, write):
    path = write(
        "t.json",
        squad(
            question("q1", ("Ada Lovelace", 0), ("Ada", 0)),
            question("q2", is_impossible=True, plausible_answers=[{"text": "Ada", "answer_start": 0}]),
            question("q3", ("1843", 40)),
        ),
    )
    train = read(kind="question_answering", train=path).splits["train"]
    assert train.ids == ["q1", "q2", "q3"]
    assert train.labels == [(Answer("Ada Lovelace", 0), Answer("Ada", 0)), (), (Answer("1843", 40),)]
    assert set(train.pairs) == {CONTEXT}
    assert train.places[0] == f"{path}: article 0, paragraph 0, question q1"


def test_a_misplaced_answer_is_refused_or_dropped(read, write):
    path = write("t.json", squad(question("q1", ("Babbage", 0)), question("q2", ("1843", 40))))
    with pytest.raises(DataError, match=r"question q1: expected the answer 'Babbage' at character 0 of its context, got 'Ada Lov'"):
        read(kind="question_answering", train=path)
    data = read(kind="question_answering", train=path, on_bad_row="drop")
    assert data.splits["train"].ids == ["q2"]
    assert data.report.count("bad rows") == 1


def test_a_test_file_without_answers_is_unlabelled(read, write):
    test = [{"id": "q1", "question": "Who?"}]
    assert read(kind="question_answering", test=write("t.json", squad(*test))).splits["test"].labels is None
    with pytest.raises(DataError, match="question q1: expected a label, got none"):
        read(kind="question_answering", dev=write("d.json", squad(*test)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected SQuAD's JSON"),
        ("[]", "expected SQuAD's JSON with a list `data`, got list"),
        ('{"rows": []}', "got fields rows"),
        ('{"data": [{"paragraph": []}]}', r"article 0: expected a list paragraphs, got fields paragraph \(did you mean paragraph\?\)"),
        ('{"data": [{"paragraphs": [{"context": "a", "qas": [{"id": "1"}]}]}]}', "expected a context and a question, got fields id"),
        ('{"data": []}', "expected rows of train, got none"),
        (b'{"data": "\xff"}', "byte 10: expected UTF-8"),
    ],
)
def test_another_json_is_one_line(read, write, content, message):
    with pytest.raises(DataError, match=message):
        read(kind="question_answering", train=write("t.json", content))


def test_questions_on_one_context_stay_in_one_split(read, write):
    row = '{"question": "q%d", "context": "Ada %d", "answers": [{"text": "Ada", "answer_start": 0}]}\n'
    path = write("t.jsonl", "".join(row % (number, number // 4) for number in range(80)))
    data = read(kind="question_answering", train=path, dev_fraction=0.2)
    assert not set(data.splits["train"].pairs) & set(data.splits["dev"].pairs)
    assert len(data.splits["dev"]) == 16
    assert any("split by context: 16" in note for note in data.report.notes)


def test_contexts_of_train_in_dev_are_counted(read, write):
    train, dev = write("t.json", squad(question("q1", ("Ada", 0)))), write("d.json", squad(question("q2", ("1843", 40))))
    data = read(kind="question_answering", train=train, dev=dev)
    assert data.report.count("rows with a context of train", "dev") == 1
    assert data.report.count("rows that are also in train", "dev") == 0
