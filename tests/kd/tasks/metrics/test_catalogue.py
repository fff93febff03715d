"""Rows of the catalogue: functions agree with each other, constants are those of a constant prediction, errors name the rows."""

import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest

from data_shards.tasks.presets import PRESETS
from kd.errors import KdError
from kd.tasks.metrics import extra
from kd.tasks.metrics.catalogue import DEFAULT, METRICS, OFFICIAL, Kind, Metric, constant_predictions, metric, metrics_of


def data(kind: Kind, seed: int) -> tuple[Any, Any]:
    """Predictions that are right for 85 %, and labels."""
    generator = np.random.default_rng(seed)
    right = generator.random(40) < 0.85
    if kind == "classification":
        labels = (generator.random(40) < 0.4).astype(int)
        return np.where(right, labels, 1 - labels), labels
    if kind == "regression":
        numbers = generator.normal(size=40)
        return numbers + generator.normal(size=40), numbers
    if kind == "multi_label":
        sets = generator.random((40, 3)) < [0.2, 0.6, 0.4]
        return sets ^ ~right[:, None], sets
    if kind == "tagging":
        tags = [["B-PER", "I-PER", "O"] if flip else ["O", "B-LOC", "O"] for flip in generator.random(40) < 0.5]
        return [one if ok else ["O", "O", "B-PER"] for one, ok in zip(tags, right, strict=True)], tags
    answers: list[list[str]] = [[f"answer {number}"] if number % 3 else [] for number in range(40)]
    return [(answer or [""])[0] if ok else "answer" for answer, ok in zip(answers, right, strict=True)], answers


@pytest.mark.parametrize("row", METRICS, ids=lambda row: f"{row.kind}-{row.key}")
def test_the_weighted_form_is_the_value_and_its_interval_holds_it(row: Metric):
    for seed in range(3):
        predictions, labels = data(row.kind, seed)
        value = row.value(predictions, labels)
        assert row.weighted(predictions, labels)(np.ones((1, 40)))[0] == pytest.approx(value, rel=1e-12)
        interval = row.interval(predictions, labels, resamples=200)
        assert interval.value == pytest.approx(value)
        assert row.low <= interval.low < interval.value < interval.high <= row.high
        assert row.value(labels if row.kind != "question_answering" else [(a or [""])[0] for a in labels], labels) == pytest.approx(
            row.high
        )
        assert row.constant(labels) < value
        assert row.difference(predictions, predictions, labels, resamples=50).value == 0


@pytest.mark.parametrize(
    ("kind", "key", "labels", "expected"),
    [
        ("classification", "accuracy", [0, 1, 1, 1], 3 / 4),
        ("classification", "f1", [0, 1, 1, 1], 2 * 3 / (4 + 3)),
        ("classification", "f1", [0, 0, 0, 1], 0),
        ("classification", "f1_macro", [0, 1, 1, 1], 3 / 7),
        ("classification", "matthews", [0, 1, 1, 1], 0),
        ("regression", "pearson", [1.0, 2.0, 4.5], 0),
        ("multi_label", "subset_accuracy", [[1, 0], [1, 0], [0, 1]], 2 / 3),
        ("tagging", "entity_f1", [["B-PER"], ["O"]], 0),
        ("question_answering", "exact_match", [["Denver"], [], []], 2 / 3),
    ],
)
def test_the_constant_predictor_by_hand(kind: Kind, key: str, labels: Any, expected: float):
    assert metric(kind, key).constant(labels) == pytest.approx(expected)


def test_training_labels_decide_the_constant():
    assert constant_predictions("classification", [1, 1, 0], train_labels=[0, 0, 1]).tolist() == [0, 0, 0]
    assert metric("classification", "accuracy").constant([1, 1, 0], [0, 0, 1]) == pytest.approx(1 / 3)


def test_every_kind_and_published_task_has_metrics():
    assert set(DEFAULT) == {row.kind for row in METRICS} == set(get_args(Kind))
    assert [row.key for row in metrics_of("classification", "glue/mrpc")] == ["f1", "accuracy"]
    assert [row.key for row in metrics_of("regression", "glue/stsb")] == ["pearson", "spearman"]
    assert [row.key for row in metrics_of("classification")] == ["accuracy", "f1_macro"]
    for keys in OFFICIAL.values():
        assert any({row.key for row in METRICS if row.kind == kind} >= set(keys) for kind in get_args(Kind))


def test_presets_name_the_same_official_metrics():
    assert {name: preset.metrics for name, preset in PRESETS.items()} == OFFICIAL


def test_a_metric_that_does_not_exist_is_one_line_with_the_names_of_its_kind():
    with pytest.raises(KdError, match="metric bleu: expected one of pearson, spearman for regression, got 'bleu'"):
        metric("regression", "bleu")


def test_a_missing_package_is_one_line_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(KdError, match=r"expected the package scikit-learn, got .*; run pip install 'stillhouse\[tasks\]'"):
        metric("classification", "accuracy").value([1], [1])
    with pytest.raises(KdError, match="expected the package nothing_like_it"):
        extra.tasks_module("nothing_like_it")


def test_the_catalogue_imports_neither_torch_nor_scikit_learn():
    code = "import sys, kd.tasks.metrics.catalogue; print([m for m in ('torch', 'sklearn', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
