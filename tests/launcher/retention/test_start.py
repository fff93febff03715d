"""The start of a student: run folders, student folders and model folders, and what is known of their pretraining."""

import json
from pathlib import Path

import pytest

from launcher.config.load import dump_config, load_config
from launcher.errors import LaunchError
from launcher.retention.start import Start, read_start


def make_run(folder: Path, tokens: int, *settings: str) -> Path:
    """A finished run as Stillhouse leaves it, without weights."""
    (folder / "student").mkdir(parents=True)
    (folder / "student" / "config.json").write_text("{}")
    (folder / "config.yaml").write_text(dump_config(load_config("tiny", ["data.shards=s", "teacher.model=t", *settings])))
    (folder / "report.json").write_text(json.dumps({"tokens": tokens, "heldout": None}))
    return folder


@pytest.mark.parametrize("below", ["", "student", "student/"])
def test_a_run_folder_and_its_student_know_tokens_and_teacher(tmp_path: Path, below: str):
    run = make_run(tmp_path / "long", 1234)
    start = read_start("x", f"{run}/{below}")
    assert (start.tokens, start.distilled, start.name) == (1234, True, "long")
    assert Path(start.model) == run / "student"


def test_a_run_without_a_teacher_is_not_distilled(tmp_path: Path):
    run = make_run(tmp_path / "plain", 5, "teacher=null", "student.init=m", "objective=[{kind: mlm}]")
    assert read_start("x", str(run)) == Start(str(run / "student"), 5, False)


def test_the_tokens_of_a_chain_of_runs_are_added(tmp_path: Path):
    first = make_run(tmp_path / "first", 1000)
    second = make_run(tmp_path / "second", 200, f"student.init={first / 'student'}")
    assert read_start("x", str(second)).tokens == 1200
    assert read_start("x", str(make_run(tmp_path / "third", 30, "student.init=org/model"))).tokens == 30


def test_a_student_without_its_run_has_them_in_its_card(tmp_path: Path):
    card = "# demo\n\nIt was made with Stillhouse.\n\n| tokens per window | 128 |\n| teacher | bert |\n| tokens | 368,583 |\n"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text(card)
    assert read_start("x", str(tmp_path)) == Start(str(tmp_path), 368_583, True)
    (tmp_path / "README.md").write_text(card.replace("bert", "none"))
    assert read_start("x", str(tmp_path)) == Start(str(tmp_path), 368_583, False)
    (tmp_path / "README.md").write_text("# A model from elsewhere\n\n| tokens | 5 |\n")
    assert read_start("x", str(tmp_path)) == Start(str(tmp_path))


def test_a_hub_name_is_taken_as_it_is():
    assert read_start("x", "org/model") == Start("org/model")
    assert read_start("x", "org/model").name == "org/model"


def test_a_folder_that_holds_no_model_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    unfinished = make_run(tmp_path / "unfinished", 1)
    (unfinished / "student" / "config.json").unlink()
    for start, got in {
        "/nowhere/student": "got /nowhere/student, nothing there; check the path",
        "runs/never/student": "got runs/never/student, nothing there; check the path",
        str(tmp_path / "file"): "file, a file; check the path",
        str(tmp_path / "empty"): "empty without config.json; check the path",
        str(unfinished): "unfinished without a student; start that run again to finish it",
    }.items():
        with pytest.raises(LaunchError, match=r"^p\.yaml: students\.x\.start: expected ") as error:
            read_start("p.yaml: students.x.start", start)
        assert str(error.value).endswith(got)
        assert "\n" not in str(error.value)
