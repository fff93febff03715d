"""Students of a task: layers of the teacher, its head by name, and what starts fresh is named."""

import json

import pytest
import torch
from transformers import AutoConfig

from kd.errors import KdError
from kd.student.settings import StudentSettings
from kd.tasks.loading import load_task
from kd.tasks.model import TaskEncoder
from kd.tasks.student import make_task_student, task_student_of_config
from tests.kd.tasks.conftest import CASES, LABELS, task_batch, task_model

pytestmark = pytest.mark.tasks

SAME = StudentSettings(architecture="same")


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_a_student_of_all_layers_is_the_teacher(family, kind):
    model = task_model(family, kind)
    teacher = TaskEncoder(model, kind)
    labels = [] if kind in ("regression", "question_answering") else LABELS
    made = make_task_student(StudentSettings(architecture="same", layers="first", count=teacher.layers), teacher, kind, labels, 1)
    assert made.fresh == []
    batch = task_batch(kind, pad=model.config.pad_token_id)
    with torch.no_grad(), made.encoder.evaluating():
        assert torch.equal(made.encoder(batch).logits, teacher(batch).logits)


def test_layers_are_chosen_and_the_head_is_copied():
    teacher = TaskEncoder(task_model("bert", "classification"), "classification")
    made = make_task_student(SAME, teacher, "classification", LABELS, 1)
    assert made.encoder.layers == 2
    student, source = dict(made.encoder.hf.named_parameters()), dict(teacher.hf.named_parameters())
    assert torch.equal(student["bert.encoder.layer.1.output.dense.weight"], source["bert.encoder.layer.2.output.dense.weight"])
    for name in ("bert.pooler.dense.weight", "classifier.weight", "classifier.bias"):
        assert torch.equal(student[name], source[name])
        assert student[name].data_ptr() != source[name].data_ptr()


def test_the_head_of_a_teacher_with_another_order_is_turned(saved_task):
    folder = saved_task("bert", "classification", ["up", "down", "flat"])
    teacher = load_task(str(folder), "classification", lambda where, names: [names.index(label) for label in LABELS])
    made = make_task_student(StudentSettings(architecture="same", layers="first", count=4), teacher, "classification", LABELS, 1)
    batch = task_batch("classification")
    with torch.no_grad(), made.encoder.evaluating():
        assert torch.equal(made.encoder(batch).logits, teacher(batch).logits)
    assert made.encoder.labels == LABELS
    assert made.encoder.order is None


def test_another_architecture_and_another_width_name_the_fresh_head():
    teacher = TaskEncoder(task_model("bert", "classification"), "classification")
    distilbert = make_task_student(StudentSettings(), teacher, "classification", LABELS, 1)
    assert set(distilbert.fresh) == set(distilbert.encoder.head_names)
    settings = StudentSettings(architecture="same", width=16, heads=2, shrink="magnitude")
    narrow = make_task_student(settings, teacher, "classification", LABELS, 1)
    assert narrow.fresh == ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight"]


def test_only_the_head_trains():
    teacher = TaskEncoder(task_model("bert", "classification"), "classification")
    made = make_task_student(StudentSettings(architecture="same", trainable="head"), teacher, "classification", LABELS, 1)
    assert {name for name, weight in made.encoder.hf.named_parameters() if weight.requires_grad} == set(made.encoder.head_names)


def test_a_student_of_a_saved_configuration_has_the_same_weights_by_name():
    teacher = TaskEncoder(task_model("roberta", "tagging"), "tagging")
    made = make_task_student(SAME, teacher, "tagging", LABELS, 1)
    values = json.loads(made.encoder.hf.config.to_json_string(use_diff=False))
    again = task_student_of_config(SAME, values, "tagging")
    assert {n: w.shape for n, w in again.named_parameters()} == {n: w.shape for n, w in made.encoder.named_parameters()}
    assert again.labels == LABELS
    assert isinstance(again.hf.config, type(AutoConfig.for_model(**values)))


def test_settings_of_masked_language_models_are_refused(tmp_path):
    with pytest.raises(KdError, match=r"student.new_head: expected false for a task, got true; leave it out"):
        make_task_student(StudentSettings(init=str(tmp_path), new_head=True), None, "classification", LABELS, 1)
