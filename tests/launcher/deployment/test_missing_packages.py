"""Commands without the packages of an extra: one line with the install command, and nothing written. In processes of their own."""

import json
import os
import subprocess
import sys

import pytest

from launcher.commands.parser import parser
from launcher.deployment.export import run

pytestmark = [pytest.mark.slow, pytest.mark.tasks]

BLOCKER = """
import os, sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in os.environ["BLOCKED"].split():
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
COMMANDS = """
import json, sys
from launcher.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["stillhouse", *words]
    try:
        main()
    except SystemExit as done:
        print("exit code", done.code, file=sys.stderr, flush=True)
"""


@pytest.fixture
def without(tmp_path, pytestconfig):
    """without(packages, commands): for each command its exit code and the lines of stderr, in a process that cannot import the packages."""

    def call(packages, commands):
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKER)
        paths = os.pathsep.join([str(tmp_path / "site"), str(pytestconfig.rootpath)])
        environment = os.environ | {"PYTHONPATH": paths, "BLOCKED": packages}
        words = json.dumps([[str(word) for word in command] for command in commands])
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS, words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        answers = done.stderr.split("exit code ")
        lines = [answers[0], *(answer.partition("\n")[2] for answer in answers[1:-1])]
        return [(int(answer.split("\n")[0]), text.strip().split("\n")) for answer, text in zip(answers[1:], lines, strict=True)]

    return call


@pytest.fixture(scope="module")
def exported(classifier_task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "out"
    assert run(parser().parse_args(["export", str(classifier_task[0]), "--out", str(folder)])) == 0
    return folder


@pytest.mark.parametrize("packages", ["onnxruntime", "onnx onnxscript onnxruntime"])
def test_without_onnx_runtime_each_command_on_onnx_is_one_line(without, classifier_task, exported, tmp_path, packages):
    model, config = classifier_task
    (tmp_path / "texts.txt").write_text("A house.\n")
    commands = [
        ["export", model, "--out", tmp_path / "out"],
        ["export", model, "--out", tmp_path / "out", "--precision", "int8", "--task-config", config],
        ["predict", exported, tmp_path / "texts.txt"],
        ["latency", exported],
        ["calibrate", exported, "--task-config", config],
    ]
    answers = without(packages, commands)
    first = packages.split()[0]
    for command, (code, lines) in zip(commands, answers, strict=True):
        package = first if command[0] == "export" else "onnxruntime"
        assert code == 2, command
        assert lines == [f"stillhouse: {package}: expected the package for ONNX, got none; run: pip install 'stillhouse[onnx]'"]
    assert not (tmp_path / "out").exists()


def test_without_onnx_runtime_hugging_face_folders_still_predict(without, classifier_task, tmp_path):
    (tmp_path / "texts.txt").write_text("A house.\n")
    assert without("onnxruntime onnx onnxscript", [["predict", classifier_task[0], tmp_path / "texts.txt"]]) == [(0, [""])]


@pytest.mark.parametrize("package", ["sklearn", "scipy"])  # without scipy, scikit-learn cannot be imported either
def test_without_the_packages_of_metrics_each_command_on_a_task_is_one_line(without, classifier_task, exported, tmp_path, package):
    model, config = classifier_task
    commands = [
        ["export", model, "--out", tmp_path / "out", "--precision", "int8", "--task-config", config],
        ["calibrate", exported, "--task-config", config],
        ["task", "score", model, "--config", config],
        ["task", "train", "--config", config, f"student.init={model}", f"run.folder={tmp_path / 'run'}"],
    ]
    for command, (code, lines) in zip(commands, without(package, commands), strict=True):
        assert code == 2, command
        assert len(lines) == 1
        got = f"got No module named '{package}'; run pip install 'stillhouse[tasks]'"
        assert lines[0] == f"stillhouse: task metrics: expected the package scikit-learn, {got}"
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "run").exists()


def test_without_the_package_of_dashboards_the_command_is_one_line(without, tmp_path):
    (answer,) = without("wandb_workspaces", [["dashboard", "--spec", tmp_path / "spec.json"]])
    code, lines = answer
    assert code == 2
    assert len(lines) == 1
    assert "expected the package wandb-workspaces, got " in lines[0]
    assert lines[0].endswith("pip install 'stillhouse[dashboard]'")
    assert not (tmp_path / "spec.json").exists()
