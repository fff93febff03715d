"""Whole task runs of families that differ from BERT: without a pooler, without token types, with shared layers, with narrow embeddings."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from run_lines import lines
from task_files import TaskFiles, make_task
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from kd.models.config import quiet_transformers

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
SHORT = (
    *("train.global_batch=16", "train.micro_batch=8", "train.updates=8", "train.precision=fp32", "optimizer.learning_rate=3e-3"),
    *("report.every_updates=4", "checkpoint.every_updates=null", "evaluate.resamples=100", "teacher.allow_untrained=true"),
)
FAMILIES = {
    "albert": {"embedding_size": 16},
    "electra": {"embedding_size": 16},
    "roberta": {"max_position_embeddings": 66, "type_vocab_size": 1},
    "mpnet": {"max_position_embeddings": 66},
    "modernbert": {"cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> TaskFiles:
    return make_task(tmp_path_factory.mktemp("task"), "classification", rows=64)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("config") / "task.yaml"
    path.write_text("run: {folder: x}\ndata: {kind: classification}\ntrain: {global_batch: 8, micro_batch: 8}\n")
    return str(path)


def encoder(model_type: str, like: Path, folder: Path) -> Path:
    """A random encoder of this family with the school's tokenizer and sizes."""
    shutil.copytree(like, folder)
    (folder / "model.safetensors").unlink()
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
    vocabulary = len(AutoTokenizer.from_pretrained(like))
    made = AutoConfig.for_model(model_type, vocab_size=vocabulary, pad_token_id=0, **(sizes | FAMILIES.get(model_type, {})))
    torch.manual_seed(4)
    with quiet_transformers():
        AutoModelForMaskedLM.from_config(made).save_pretrained(folder)
    return folder


def scores_alone(folder: Path, rows: list[dict]) -> float:
    """The accuracy of an exported folder by transformers alone, row by row."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    right = 0
    with torch.no_grad():
        for row in rows:
            inputs = tokenizer(row["text"], truncation=True, max_length=64, return_tensors="pt")
            inputs = {name: value for name, value in inputs.items() if name in ("input_ids", "attention_mask")}
            right += model.config.id2label[int(model(**inputs).logits.argmax())] == row["label"]
    return right / len(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_fine_tuned_and_teaches_itself_and_a_bert(family, school, files, start, config, tmp_path):
    base = encoder(family, school.teacher, tmp_path / family)
    rows = [json.loads(line) for line in (files.folder / "dev.jsonl").read_text().splitlines()]
    teacher = start(tmp_path / "teacher", *files.settings, *SHORT[:-1], f"student.init={base}", config=config, task=True)
    assert teacher.wait() == [0], teacher.output
    learns = f"teacher.model={tmp_path / 'teacher' / 'student'}"
    students = {
        "own": ["student.init=teacher", "student.architecture=same", *([] if family == "albert" else ["student.layers=every_other"])],
        "bert": [f"student.init={school.teacher}"],
    }
    for name, words in students.items():
        run = start(tmp_path / name, *files.settings, *SHORT, learns, *words, config=config, task=True)
        assert run.wait() == [0], run.output
    for name in ("teacher", *students):
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert scores_alone(tmp_path / name / "student", rows) == pytest.approx(report["dev"]["accuracy"], abs=1e-9), name
    fresh = [line["message"] for line in lines(tmp_path / "own", "event") if "start fresh" in line.get("message", "")]
    assert not fresh, "the head and the pooler are the teacher's"


def test_a_family_that_is_not_known_is_refused_in_one_line(school, files, start, config, tmp_path):
    folder = shutil.copytree(school.teacher, tmp_path / "mobilebert")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"model_type": "mobilebert"}))
    run = start(tmp_path / "run", *files.settings, *SHORT[:-1], f"student.init={folder}", config=config, task=True)
    assert run.wait() == [2]
    problem = run.output.strip().splitlines()[-1]
    assert "mobilebert" in problem
    assert "expected" in problem
