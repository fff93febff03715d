"""The demo says which of its steps runs, and its folders are those that the packaged configurations name."""

import inspect
import io
import re
from pathlib import Path

from rich.console import Console

from launcher.config.load import load_config
from launcher.demo import demo


def test_each_step_of_the_demo_has_a_number_of_its_own():
    numbers = re.findall(r'"(\d)/(\d) ', inspect.getsource(demo))
    assert numbers == [(str(number), "7") for number in range(1, 8)]


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
