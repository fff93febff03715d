"""`stillhouse calibrate`: temperature and thresholds on a development set, against computations by scipy and by counting."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from task_files import make_task
from transformers import AutoConfig, AutoTokenizer

from kd.models.config import quiet_transformers
from kd.tasks.model import MODEL_CLASSES, set_labels
from launcher.commands.parser import parser
from launcher.deployment.export import run as export
from launcher.deployment.prediction.calibrate import run
from launcher.deployment.prediction.predict import run as predict
from launcher.deployment.score import run as score
from launcher.errors import LaunchError
from stillhouse.files import sha256_of_file

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
LABELS = {"classification": ["bad", "good"], "multi_label": ["bad", "good"], "tagging": ["B-BAD", "B-GOOD", "O"], "regression": []}

YAML = "run: {{folder: runs}}\ndata: {{kind: {kind}}}\nstudent: {{init: x}}\ntrain: {{updates: 1, global_batch: 8, micro_batch: 8}}\n"

SEED = 1
"""Of the head: with it, the best temperature of each task lies inside the bounds of the search."""


@pytest.fixture
def task(corpus, tmp_path):
    """task(kind): a model folder with a random head of large logits, and the words that name its task."""

    def make(kind: str) -> tuple[Path, list[str]]:
        folder = tmp_path / "model"
        config = AutoConfig.from_pretrained(corpus.model)
        set_labels(config, kind, LABELS[kind])
        torch.manual_seed(SEED)
        with quiet_transformers():
            MODEL_CLASSES[kind].from_config(config).save_pretrained(folder)
            AutoTokenizer.from_pretrained(corpus.model).save_pretrained(folder)
        files = make_task(tmp_path / "task", kind)
        (tmp_path / "task.yaml").write_text(YAML.format(kind=kind))
        words = ["--task-config", str(tmp_path / "task.yaml")]
        for setting in [*files.settings, "data.max_length=48"]:
            words += ["--set", setting]
        return folder, words

    return make


def calibrate(*words) -> int:
    return run(parser().parse_args(["calibrate", *map(str, words)]))


def logits_of(folder: Path, words: list[str], capsys) -> list[dict]:
    """The lines of `stillhouse task score --predictions`: label and logits of each row."""
    out = folder.parent / "scored"
    out.mkdir()
    assert score(parser().parse_args(["task", "score", str(folder), "--config", words[1], "--predictions", str(out), *words[2:]])) == 0
    capsys.readouterr()
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def counted_error(shares: np.ndarray, gold: np.ndarray) -> float:
    """Expected calibration error by a loop over 15 bins."""
    confidence, right = shares.max(1), shares.argmax(1) == gold
    total = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            total += inside.sum() / len(gold) * abs(right[inside].mean() - confidence[inside].mean())
    return total


def minimised(logits: np.ndarray, gold: np.ndarray) -> float:
    """The temperature with the lowest negative log-likelihood, by a simplex over its logarithm."""

    def loss(x: np.ndarray) -> float:
        return -float(log_softmax(logits / np.exp(x[0]), axis=1)[np.arange(len(gold)), gold].mean())

    return float(np.exp(minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-13}).x[0]))


def test_the_temperature_is_that_of_a_minimisation(task, capsys):
    folder, words = task("classification")
    rows = logits_of(folder, words, capsys)
    logits, gold = np.array([row["logits"] for row in rows]), np.array([LABELS["classification"].index(row["label"]) for row in rows])
    assert calibrate(folder, *words) == 0
    made = json.loads((folder / "calibration.json").read_text())
    assert made["temperature"] == pytest.approx(minimised(logits, gold), rel=1e-3)  # written logits have five decimals
    assert made["error_before"] == pytest.approx(counted_error(softmax(logits, axis=1), gold), abs=1e-4)
    assert made["error_after"] == pytest.approx(counted_error(softmax(logits / made["temperature"], axis=1), gold), abs=1e-4)
    assert made["files"] == {"model.safetensors": sha256_of_file(folder / "model.safetensors")}
    told = capsys.readouterr().out
    assert f"temperature {made['temperature']:.4f}, chosen on 80 rows of dev" in told
    errors = f"{made['error_before']:.4f} before, {made['error_after']:.4f} after, {made['error_other_half']:.4f} where each half"
    assert f"expected calibration error: {errors}" in told


def test_predict_divides_logits_by_the_stored_temperature_when_asked(task, capsys, tmp_path):
    folder, words = task("classification")
    assert calibrate(folder, *words) == 0
    temperature = json.loads((folder / "calibration.json").read_text())["temperature"]
    (tmp_path / "in.txt").write_text("ba de fi\nlu mer nor ba\n")
    capsys.readouterr()
    plain, scaled = [], []
    for lines, flags in ((plain, []), (scaled, ["--calibrated"])):
        assert predict(parser().parse_args(["predict", str(folder), str(tmp_path / "in.txt"), *flags])) == 0
        lines += [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for one, other in zip(plain, scaled, strict=True):
        difference = np.log(one["score"] / (1 - one["score"]))  # of the two logits
        assert other["score"] == pytest.approx(1 / (1 + np.exp(-difference / temperature)), abs=1e-3)
        assert other["label"] == one["label"]


def test_thresholds_of_several_labels_are_stored_and_used(task, capsys, tmp_path):
    folder, words = task("multi_label")
    rows = logits_of(folder, words, capsys)
    assert calibrate(folder, *words) == 0
    made = json.loads((folder / "calibration.json").read_text())
    logits = np.array([row["logits"] for row in rows])
    gold = np.array([[name in row["label"] for name in LABELS["multi_label"]] for row in rows])
    flat = np.stack([np.zeros(logits.size), logits.reshape(-1)], 1)
    assert made["temperature"] == pytest.approx(min(100.0, minimised(flat, gold.reshape(-1).astype(int))), rel=1e-3)
    shares = 1 / (1 + np.exp(-logits / made["temperature"]))
    for number, name in enumerate(LABELS["multi_label"]):
        best = max(f1(shares[:, number] >= cut, gold[:, number]) for cut in np.linspace(0, 1, 2001))
        assert f1(shares[:, number] >= made["thresholds"][name], gold[:, number]) >= best - 1e-9
    assert made["metric_before"] == pytest.approx(f1((logits > 0).reshape(-1), gold.reshape(-1)))
    texts = [json.loads(line)["text"] for line in (tmp_path / "task" / "dev.jsonl").read_text().splitlines()]
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n")
    capsys.readouterr()
    assert predict(parser().parse_args(["predict", str(folder), str(tmp_path / "in.txt"), "--calibrated", "--max-length", "48"])) == 0
    labels = [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()]
    predicted = np.array([[name in label for name in LABELS["multi_label"]] for label in labels])
    assert f1(predicted.reshape(-1), gold.reshape(-1)) == pytest.approx(made["metric_after"])


def f1(predicted: np.ndarray, gold: np.ndarray) -> float:
    return 2 * int((predicted & gold).sum()) / max(1, int(predicted.sum() + gold.sum()))


def test_words_of_tagging_have_one_temperature(task, capsys):
    folder, words = task("tagging")
    assert calibrate(folder, *words) == 0
    assert re.search(r"temperature [\d.]+, chosen on \d{3} words of dev", capsys.readouterr().out)


def test_an_export_keeps_its_calibration_in_its_record_and_readme(task, capsys, tmp_path):
    folder, words = task("classification")
    out = tmp_path / "out"
    export(parser().parse_args(["export", str(folder), "--out", str(out)]))
    digest = sha256_of_file(out / "model.onnx")
    assert calibrate(out, *words) == 0
    assert calibrate(out, *words) == 0
    record = json.loads((out / "stillhouse.json").read_text())
    readme = (out / "README.md").read_text()
    assert readme.count("## Calibration") == 1, "a second calibration replaces the first"
    assert "--task-config task.yaml" in readme
    assert str(tmp_path) not in readme, "no path of this machine"
    assert sha256_of_file(out / "model.onnx") == digest == record["files"]["model.onnx"]
    code = readme.rpartition("```python\n")[2].partition("```")[0]
    logits = np.array([3.0, 1.0])
    names = {"numpy": np, "logits": logits}
    exec(code, names)
    assert names["shares"] == pytest.approx(softmax(logits / record["calibration"]["temperature"]), rel=1e-4)
    (tmp_path / "in.txt").write_text("ba de fi\n")
    assert predict(parser().parse_args(["predict", str(out), str(tmp_path / "in.txt"), "--calibrated"])) == 0


def test_mistakes_are_one_line(task, tmp_path):
    folder, words = task("classification")
    (tmp_path / "in.txt").write_text("ba\n")
    asked = parser().parse_args(["predict", str(folder), str(tmp_path / "in.txt"), "--calibrated"])
    with pytest.raises(LaunchError, match=r"model: expected a calibrated model, got none; run: stillhouse calibrate .*model --task-config"):
        predict(asked)
    assert calibrate(folder, *words) == 0
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(LaunchError, match=r"calibration\.json: expected the weights that were calibrated, got another model\.safetensors"):
        predict(asked)
    (folder / "calibration.json").write_text('{"temperature": 1}')
    with pytest.raises(LaunchError, match=r"calibration\.json: expected a calibration, got "):
        predict(asked)
    with pytest.raises(LaunchError, match=r"none: expected a model folder, in which the calibration is stored, got none"):
        calibrate(tmp_path / "none", *words)
    with pytest.raises(LaunchError, match=r"^data\.dev: expected at least 40 rows to choose a temperature on, got 20; use a larger one$"):
        calibrate(folder, *words, "--set", "data.max_rows=20")


def test_a_model_without_classes_is_refused(task):
    folder, words = task("regression")
    with pytest.raises(LaunchError, match=r"expected a model for classification, multi_label, tagging, got regression, whose scores"):
        calibrate(folder, *words)
