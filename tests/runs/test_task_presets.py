"""The packaged task configurations: each says its purpose, loads, and trains on files in the form of the official ones."""

import json
import re

import pytest
import yaml
from official_files import make_official

from data_shards.tasks.presets import PRESETS
from launcher.config.load import load_run
from launcher.config.presets import purpose
from launcher.config.task_config import TaskEvaluateSettings, TaskRunConfig
from launcher.config.yaml_file import PACKAGED

pytestmark = pytest.mark.tasks

NAMES = sorted(file.stem for file in (PACKAGED / "tasks").glob("*.yaml") if "preset:" in file.read_text())  # not the demo's
SMALL = ("train.global_batch=8", "train.micro_batch=8", "train.updates=2", "train.precision=fp32", "data.max_length=64")
ROWS = {"imdb": {"train": 44, "dev": 4, "test": 48}, "conll2003": {"train": 24, "dev": 24, "test": 24}}


def test_there_is_one_for_each_preset():
    assert {load_run(f"tasks/{name}").data.preset for name in NAMES} == set(PRESETS) - {"glue/mnli-mismatched"}


@pytest.mark.parametrize("name", NAMES)
def test_each_says_its_purpose_and_has_published_numbers(name):
    config = load_run(f"tasks/{name}")
    assert isinstance(config, TaskRunConfig)
    assert 10 < len(purpose(PACKAGED / "tasks" / f"{name}.yaml")) < 90
    assert 2e-5 <= config.optimizer.learning_rate <= 5e-5
    assert config.train.epochs is not None
    assert 2 <= config.train.epochs <= 10
    assert [term.kind for term in config.terms.values()] == ["task_loss"]
    distilling = load_run(f"tasks/{name}", ["teacher.model=x", "student.init=teacher"])
    assert [term.kind for term in distilling.terms.values()] == ["soft_targets"]
    assert set(yaml.safe_load((PACKAGED / "tasks" / f"{name}.yaml").read_text())) == {
        *("run", "data", "student", "train", "optimizer", "evaluate")
    }


def test_the_examples_of_the_documents_load(tmp_path):
    page = (PACKAGED.parent / "docs" / "tasks.md").read_text()
    first, *parts = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert len(parts) == 3
    for number, part in enumerate(["", *parts]):
        values = yaml.safe_load(first) | yaml.safe_load(part or "{}")
        if part:
            values |= {"teacher": values.get("teacher", {"model": "x"}), "train": values["train"] | {"epochs": None, "updates": 3000}}
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(values))
        assert isinstance(load_run(str(path)), TaskRunConfig)


def test_the_documents_have_each_setting_of_a_task_evaluation_with_its_default():
    page = (PACKAGED.parent / "docs" / "tasks.md").read_text()
    rows = dict(re.findall(r"^\| `evaluate\.(\w+)` \| `([^`]+)` \|", page, re.M))
    own = {name: field for name, field in TaskEvaluateSettings.model_fields.items() if name in TaskEvaluateSettings.__annotations__}
    assert rows == {name: json.dumps(field.default) for name, field in own.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_trains_on_files_of_the_official_form(name, school, start, tmp_path):
    files = make_official(tmp_path / "files", name)
    more = ("data.max_question=16", "data.window_overlap=16") if name.startswith("squad") else ()
    settings = (f"data.folder={files}", f"student.init={school.teacher}", *SMALL, *more)
    run = start(tmp_path / "run", *settings, config=f"tasks/{name}", task=True)
    assert run.wait() == [0], run.output
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["updates"] == 2
    assert report["rows"] == ROWS.get(name, {"train": 24, "dev": 24})
    assert report["task"]["metric"] == PRESETS[load_run(f"tasks/{name}").data.preset].metrics[0]
