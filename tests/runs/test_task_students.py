"""Students and teachers that differ from each other: tokenizers, poolers, token types, positions. Refused in one line, or said."""

import json
from pathlib import Path

import pytest
from task_files import make_task
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedTokenizerFast,
)

from kd.models.config import quiet_transformers

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
TRAIN = ("train.global_batch=16", "train.micro_batch=8", "train.precision=fp32", "train.updates=2")
TAGS = ["B-BAD", "B-GOOD", "O"]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("config") / "task.yaml"
    path.write_text("run: {folder: x}\ndata: {kind: classification}\ntrain: {global_batch: 8, micro_batch: 8}\n")
    return str(path)


@pytest.fixture
def run(start, config, tmp_path):
    """run(*settings): the exit code and output of a short run on a task."""

    def begin(*settings: str) -> tuple[int, str]:
        started = start(tmp_path / "run", *TRAIN, *settings, config=config, task=True)
        (code,) = started.wait()
        assert "Traceback" not in started.output
        return code, started.output

    return begin


def refused(result: tuple[int, str]) -> str:
    """The one line of a refusal."""
    code, output = result
    assert code == 2, output
    (line,) = [line for line in output.splitlines() if "expected" in line]
    return line


@pytest.fixture
def pairs(tmp_path: Path) -> list[str]:
    """The settings of a task on pairs of texts."""
    for split, rows in (("train", 64), ("dev", 16)):
        made = [
            {"a": "ba de", "b": f"fi {'go' if n % 2 else 'lu'} {'ba ' * (n % 5)}{n % 3}", "label": "good" if n % 2 else "bad"}
            for n in range(rows)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    columns = ["data.columns.text=a", "data.columns.text_pair=b", "data.max_length=32"]
    return ["data.kind=classification", f"data.train={tmp_path}/train.jsonl", f"data.dev={tmp_path}/dev.jsonl", *columns]


@pytest.mark.parametrize(
    ("kind", "model"), [("tagging", AutoModelForTokenClassification), ("question_answering", AutoModelForQuestionAnswering)]
)
def test_a_teacher_with_another_tokenizer_is_refused_where_positions_are_compared(kind, model, school, run, tmp_path):
    names = {"id2label": dict(enumerate(TAGS)), "label2id": {tag: n for n, tag in enumerate(TAGS)}} if kind == "tagging" else {}
    with quiet_transformers():
        model.from_pretrained(school.teacher, **names).save_pretrained(tmp_path / "teacher")
    PreTrainedTokenizerFast.from_pretrained(school.teacher).save_pretrained(tmp_path / "teacher")
    values = json.loads((tmp_path / "teacher" / "tokenizer.json").read_text())
    vocabulary = values["model"]["vocab"]
    first, second = list(vocabulary)[10:12]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tmp_path / "teacher" / "tokenizer.json").write_text(json.dumps(values))
    files = make_task(tmp_path / kind, kind)
    line = refused(run(*files.settings, f"teacher.model={tmp_path / 'teacher'}", f"student.init={school.teacher}"))
    assert "teacher.model: expected a teacher with the student's tokenizer, got " in line
    assert f"{kind} compares positions; choose a teacher with the same tokenizer" in line


def test_a_student_with_fewer_positions_than_max_length_is_refused(school, run, tmp_path):
    files = make_task(tmp_path / "task", "classification")
    line = refused(run(*files.settings, "data.max_length=96", f"student.init={school.teacher}"))
    assert "data.max_length: expected at most 64, the positions of the student, got 96; lower it" in line


def test_a_folder_without_pooler_and_token_types_learns_pairs_and_says_so(school, pairs, run, tmp_path):
    """A DistilBERT has neither: the fresh head is named, and the advice for the next pretraining."""
    shape = {"vocab_size": 29, "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64}
    with quiet_transformers():
        DistilBertForMaskedLM(DistilBertConfig(**shape)).save_pretrained(tmp_path / "student")
    PreTrainedTokenizerFast.from_pretrained(school.teacher).save_pretrained(tmp_path / "student")
    code, output = run(*pairs, f"student.init={tmp_path / 'student'}")
    assert code == 0, output
    assert "pre_classifier.weight" in output, "the fresh head is named"
    assert "student: it has no token types, so only a separator tells the texts of a pair apart" in output
    assert "student.architecture: same in its pretraining keeps them" in output


def test_a_student_that_has_token_types_says_nothing_of_them(school, pairs, run):
    code, output = run(*pairs, f"student.init={school.teacher}")
    assert code == 0, output
    assert "no token types" not in output


def test_layers_of_a_teacher_whose_token_types_are_folded_away_name_the_setting_that_keeps_them(
    school, pairs, run, tmp_path, start, config
):
    made = start(tmp_path / "teacher-run", *TRAIN, *pairs, f"student.init={school.teacher}", config=config, task=True)
    assert made.wait() == [0], made.output
    distil = [f"teacher.model={tmp_path / 'teacher-run' / 'student'}", "teacher.allow_untrained=true", "student.init=teacher"]
    code, output = run(*pairs, *distil, "student.architecture=distilbert")
    assert code == 0, output
    assert "tells the texts of a pair apart; student.architecture: same keeps them" in output
