"""The demo says which of its steps runs, and its folders are those that the packaged configurations name."""

import inspect
import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from fork_server import Forked, ForkServer
from rich.console import Console
from school import make_school
from task_files import make_task

from launcher.config.load import load_config, load_run
from launcher.demo import demo


def test_each_step_of_the_demo_has_a_number_of_its_own():
    numbers = re.findall(r'"(\d)/(\d) ', inspect.getsource(demo))
    assert numbers == [(str(number), "8") for number in range(1, 9)]


def test_the_teachers_folder_is_copied_whole_and_once(tmp_path: Path):
    run, model = tmp_path / "teacher" / "whole" / "student", tmp_path / "teacher" / "model"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    leftover = tmp_path / "teacher" / ".model.partial"
    leftover.mkdir()
    (leftover / "half").write_text("of a killed copy")
    demo.copy_folder(run, model)
    (run / "config.json").write_text("changed")
    demo.copy_folder(run, model)
    assert [(file.name, file.read_text()) for file in model.iterdir()] == [("config.json", "{}")]
    assert not leftover.exists()


def test_packaged_configurations_name_the_folders_that_the_demo_makes(tmp_path: Path):
    made = demo.Demo(Path("runs/demo"), 1, Console(file=io.StringIO()))
    assert load_config("demo").members["teacher"].model == str(made.teacher)
    assert load_config("minilmv2", scale="demo").members["teacher"].model == str(made.teacher)
    assert load_config("demo").run.folder == str(made.folder)
    assert load_config("demo-teacher-head").run.folder == str(made.folder / demo.TEACHER_HEAD)
    assert load_config("demo-teacher").run.folder == str(made.folder / demo.TEACHER_WHOLE)
    assert load_config("demo-teacher").student.init == str(made.folder / demo.TEACHER_HEAD / "student")
    assert load_config("demo-baseline").student.init == str(made.initial)
    task = load_run("tasks/demo")
    assert task.run.folder == str(made.folder / demo.TASK_RUNS["teacher"])
    assert task.student.init == str(made.teacher)
    assert task.data.train == str(made.folder / "reviews.jsonl")


@pytest.mark.slow
def test_teacher_and_student_learn_the_task_and_the_table_has_its_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork_server: ForkServer
):
    (tmp_path / "school").mkdir()
    school = make_school(tmp_path / "school")
    task = make_task(tmp_path / "made", "classification")
    examples = [json.loads(line) for line in (task.folder / "train.jsonl").read_text().splitlines()]
    films = [row | {"film": str(number % 30)} for number, row in enumerate(examples)]
    reviews = tmp_path / "cached.jsonl"
    reviews.write_text("".join(json.dumps(row) + "\n" for row in films))
    monkeypatch.setattr(demo.downloads, "reviews", lambda: reviews)

    def alone(command: list[str], env: dict[str, str]) -> Forked:  # one forked rank in the place of deepspeed's launcher
        words = command[command.index("--config") :]
        return fork_server.start(["launcher/run.py", *words], env | {"OMP_NUM_THREADS": "1"}, tmp_path / "log", tmp_path)

    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(Popen=alone))
    console = Console(file=io.StringIO(), width=120)
    made = demo.Demo(tmp_path / "demo", 1, console)
    made.teacher = school.teacher
    shutil.copytree(school.teacher, tmp_path / "demo" / "student")
    scores = {"loss": 1.0, "top1": 0.5, "top5": 0.6, "retention": 1.0, "kl": 0.1, "agreement": 0.9, "parameters": 1000}
    names = ("teacher", "as initialised", "without teacher", "distilled")
    made.report.write_text(json.dumps({"models": [{"name": name, "model": name, **scores} for name in names]}))
    train, faster = made._train, ["optimizer.learning_rate=3e-3", "train.epochs=4", "train.precision=fp32"]
    monkeypatch.setattr(made, "_train", lambda name, folder, words: train(name, folder, [*words, *faster]))
    assert not made.done
    assert made._learn_task() == 0
    assert made.done
    made.show()
    table = console.file.getvalue().splitlines()
    place = next(line for line in table if "task" in line).split().index("task")
    rows = {line.strip().split("  ")[0]: line for line in table if "%" in line}
    for name, folder in demo.TASK_RUNS.items():
        accuracy = json.loads((tmp_path / "demo" / folder / "report.json").read_text())["dev"]["accuracy"]
        assert rows[name].split()[place] == f"{accuracy:.1%}"
    assert rows["without teacher"].count("%") == rows["teacher"].count("%") - 1
