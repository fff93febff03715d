"""Commands without the packages of an extra: one line with the install command, and nothing written. In processes of their own.

A process is forked where no module of the package is imported before the fork. scikit-learn and scipy need a new process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fork_server import ForkServer

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
import json, os, sys
assert not {name.split(".")[0] for name in sys.modules} & set(os.environ["BLOCKED"].split())
from launcher.cli import main
sys.stdout = open(os.devnull, "w")
for words in json.loads(sys.argv[1]):
    sys.argv = ["stillhouse", *words]
    try:
        main()
    except SystemExit as done:
        print("exit code", done.code, file=sys.stderr, flush=True)
"""


@pytest.fixture
def without(tmp_path: Path, pytestconfig: pytest.Config, fork_server: ForkServer) -> Callable[..., list[tuple[int, list[str]]]]:
    """without(packages, commands): for each command its exit code and its lines of stderr, in a process that cannot import the packages.

    forked: the process is forked from one that has imported none of them.
    """

    def call(packages: str, commands: list[list[object]], forked: bool = True) -> list[tuple[int, list[str]]]:
        environment = os.environ | {"PYTHONPATH": str(pytestconfig.rootpath), "BLOCKED": packages}
        words = json.dumps([[str(word) for word in command] for command in commands])
        script, log = tmp_path / "commands.py", tmp_path / "commands.log"
        script.write_text(BLOCKER + COMMANDS)
        if forked:
            code = fork_server.start([str(script), words], environment, log, tmp_path).wait(120)
        else:
            with log.open("wb") as file:
                code = subprocess.run([sys.executable, script, words], cwd=tmp_path, env=environment, stdout=file, stderr=file).returncode
        said = log.read_text()
        assert code == 0, said
        answers = said.split("exit code ")
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
    for command, (code, lines) in zip(commands, without(package, commands, forked=False), strict=True):
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
