"""A run's folder: what is in it, who owns it, and which configurations it takes."""

import json
import os
import signal
import socket
import stat
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from fork_server import ForkServer

from launcher.config.free_to_change import marked_settings
from launcher.config.load import config_of, dump_config, load_config, parse_config, public_values
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.run_folder import folder as run_folder
from launcher.run_folder import lock as ownership
from launcher.run_folder.folder import RunFolder, environment
from stillhouse.files import write_atomically

ROOT = Path(__file__).parents[3]
OPENER = """
import sys, time
from launcher.config.load import load_config
from launcher.run_folder.folder import RunFolder
with RunFolder.open(load_config("tiny", sys.argv[1:])):
    print("open", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "one"


def configured(folder: Path, *overrides: str) -> RunConfig:
    return load_config("tiny", [f"run.folder={folder}", *overrides])


def refusal(made: RunConfig) -> str:
    with pytest.raises(LaunchError) as caught, RunFolder.open(made):
        pass
    return str(caught.value)


def lock_of(folder: Path, **owner: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lock").write_text(json.dumps(ownership._myself() | owner))
    return folder / "lock"


def test_a_folder_says_what_runs_in_it_and_where(folder: Path):
    made = configured(folder)
    with RunFolder.open(made) as run:
        assert parse_config((folder / "config.yaml").read_text(), "x") == made
        facts = json.loads((folder / "environment.json").read_text())
        assert json.loads((folder / "lock").read_text())["pid"] == os.getpid()
        assert run.checkpoints.is_dir()
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(facts["packages"]) >= {"torch", "deepspeed", "transformers", "stillhouse"}
    assert facts["host"] == socket.gethostname()
    assert not (folder / "lock").exists()


def test_neither_the_environment_nor_a_password_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", "planted-in-the-environment")
    monkeypatch.setattr(sys, "argv", ["run.py", "data.shards=https://me:planted-in-a-url@host/a"])
    with RunFolder.open(configured(folder, "data.shards=https://me:planted-in-a-url@host/a")):
        written = "".join(file.read_text() for file in folder.rglob("*") if file.is_file())
    assert "host/a" in written
    assert "planted" not in written
    assert environment()["command"] == "run.py data.shards=https://***@host/a"


def test_files_have_the_users_umask(folder: Path):
    before = os.umask(0o027)
    try:
        with RunFolder.open(configured(folder)) as run:
            assert run.wandb_id
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in [folder, *folder.rglob("*")]}
    finally:
        os.umask(before)
    assert not {name: oct(mode) for name, mode in modes.items() if mode & 0o027}


def test_the_wandb_id_is_made_once(folder: Path):
    with RunFolder.open(configured(folder)) as run:
        first = run.wandb_id
        assert run.wandb_id == first
    with RunFolder.open(configured(folder)) as run:
        assert run.wandb_id == first
    with RunFolder.open(configured(folder.with_name("two"))) as run:
        assert run.wandb_id != first


def test_a_run_that_has_learned_refuses_another_configuration_and_shows_the_difference(folder: Path):
    with RunFolder.open(configured(folder)) as run:
        (run.checkpoints / "update-00000004").mkdir()
    message = refusal(configured(folder, "train.clip=1", "objective.1.weight=3", "train.updates=20", "report.every_updates=1"))
    assert message == (
        f"run.folder: expected the configuration that {folder} began with, got another; use another folder, or remove this one:\n"
        "  objective.1.weight: 2.0 -> 3.0\n"
        "  train.updates: 12 -> 20\n"
        "  train.clip: 5.0 -> 1.0"
    )
    assert parse_config((folder / "config.yaml").read_text(), "x") == configured(folder)
    with RunFolder.open(configured(folder)):
        pass


@pytest.mark.parametrize("trace", ["student", "line"])
def test_a_student_or_a_train_line_is_something_learned(folder: Path, trace: str):
    with RunFolder.open(configured(folder)) as run:
        if trace == "student":
            run.student.mkdir()
        else:
            run.metrics.write_text('{"kind": "event", "update": 0}\n{"kind": "train", "update": 2}\n')
    assert "train.clip: 5.0 -> 1.0" in refusal(configured(folder, "train.clip=1"))


def test_a_run_that_never_learned_anything_may_change_its_mind(folder: Path):
    with RunFolder.open(configured(folder)) as run:
        run.metrics.write_text('{"kind": "event", "update": 0, "event": "started", "message": ""}\n')
    changed = configured(folder, "train.clip=1")
    with RunFolder.open(changed) as run:
        assert parse_config(run.configuration.read_text(), "x") == configured(folder), "not before it is known that the run can go on"
        run.record(changed)
        assert parse_config(run.configuration.read_text(), "x") == changed


@pytest.mark.parametrize(
    "override",
    [
        "run.name=other",
        "data.shards=elsewhere/tiny",
        "data.cache_folder=/tmp/cache",
        "teacher.mode=zero3",
        "train.micro_batch=1",
        "train.zero_stage=2",
        "train.loader_workers=0",
        "train.prefetch_updates=4",
        "train.chunk_tokens=64",
        "train.activation_checkpointing=true",
        "train.attention=eager",
        "train.timeout_seconds=60",
        "train.max_bad_updates=3",
        "checkpoint.every_updates=1",
        "evaluate.windows=null",
        "report.wandb=offline",
    ],
)
def test_what_cannot_change_the_result_may_change(folder: Path, override: str):
    with RunFolder.open(configured(folder)) as run:
        (run.checkpoints / "update-00000004").mkdir()
    changed = configured(folder, override)
    assert changed != configured(folder)
    with RunFolder.open(changed) as run:
        assert parse_config(run.configuration.read_text(), "x") == configured(folder), "not before it is known that the run can go on"
        run.record(changed)
        assert parse_config(run.configuration.read_text(), "x") == changed


def test_what_may_change_are_settings_that_exist(folder: Path):
    teachers = "teacher=[{model: models/x}, {model: models/y}]"
    for known in (public_values(configured(folder)), public_values(configured(folder, teachers, "objective.2.teacher=0"))):
        for setting in marked_settings(RunConfig):
            values = known
            for part in setting.split("."):
                values = values[0] if isinstance(values, list) else values
                if values is not None:  # one teacher, or several
                    assert part in values, setting
                    values = values[part]


def test_a_folder_that_was_moved_is_the_same_run(folder: Path):
    with RunFolder.open(configured(folder)) as run:
        (run.checkpoints / "update-00000004").mkdir()
    moved = folder.rename(folder.with_name("moved"))
    with RunFolder.open(configured(moved)) as run:
        assert (run.checkpoints / "update-00000004").exists()


@pytest.mark.parametrize("text", ["", "{", "run: {folder: a}", "train: 3\nnonsense: 4"])
def test_a_damaged_configuration_in_the_folder_is_a_refusal_that_names_the_file(folder: Path, text: str):
    with RunFolder.open(configured(folder)):
        pass
    (folder / "config.yaml").write_text(text)
    assert refusal(configured(folder)).startswith(f"{folder}/config.yaml: ")


@pytest.mark.parametrize("name", ["config.yaml", "student/config.json", "metrics.jsonl", "report.html"])
def test_files_that_no_run_wrote_are_not_replaced(folder: Path, name: str):
    """As with `--config runs/one/config.yaml run.folder=runs/one`, where the user wrote the file."""
    made = configured(folder)
    kept = folder / name
    kept.parent.mkdir(parents=True)
    kept.write_text("# mine\n" + dump_config(made))
    kind, outermost = ("a folder", folder / "student") if "/" in name else ("a file", kept)
    assert refusal(made) == (f"{outermost}: expected {kind} of a run, got one that no run wrote; rename it, or choose another run.folder")
    assert kept.read_text().startswith("# mine")
    assert [path.name for path in folder.iterdir()] == [outermost.name]
    outermost.rename(folder / "notes")
    (folder / "config.yaml").write_text(dump_config(made))  # a copy of what the run would write
    with RunFolder.open(made):
        pass


@pytest.mark.slow
def test_a_second_live_run_is_refused_and_a_killed_ones_lock_is_taken_over(folder: Path, tmp_path: Path, fork_server: ForkServer):
    script, log = tmp_path / "opener.py", tmp_path / "log"
    script.write_text(OPENER)
    first = fork_server.start([str(script), f"run.folder={folder}"], os.environ, log, ROOT)
    try:
        deadline = time.monotonic() + 60
        while not log.exists() or log.read_text() != "open\n":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert refusal(configured(folder)) == (
            f"run.folder: expected {folder} to be free, got a run that is still going (host {socket.gethostname()}, pid {first.pid}); "
            "wait for it, or use another folder"
        )
        os.kill(first.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while psutil.Process(first.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.05)
        with RunFolder.open(configured(folder)):  # a zombie, that nobody has waited for, is dead
            assert json.loads((folder / "lock").read_text())["pid"] == os.getpid()
    finally:
        first.kill()
        first.wait()


def test_of_many_that_find_a_dead_owner_one_gets_the_folder(folder: Path):
    lock_of(folder, pid=(1 << 22) + 1)
    made = configured(folder)
    with RunFolder.open(made):
        for _ in range(3):
            assert "still going" in refusal(made)
        assert json.loads((folder / "lock").read_text())["pid"] == os.getpid()
    assert not (folder / "lock").exists()


@pytest.mark.parametrize(
    "owner",
    [
        {"pid": (1 << 22) + 1},
        {"started": 1.0},  # the number belongs to another process by now
        {"pid": None},
        {"pid": "x"},
        {"pid": -5},
        {"started": []},
        {"host": "other", "machine": "gone", "job": "77"},  # the same job, requeued on another host
        {"host": "other", "machine": "gone", "job": "12"},  # nobody touches its lock any more
    ],
)
def test_a_dead_owner_is_recognised(folder: Path, monkeypatch: pytest.MonkeyPatch, owner: dict[str, object]):
    monkeypatch.setattr(ownership, "BEAT_SECONDS", 0.01)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    lock_of(folder, **owner)
    with RunFolder.open(configured(folder)):
        assert json.loads((folder / "lock").read_text())["job"] == "77"


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '{"host": 3}'])
def test_a_lock_that_names_nobody_is_no_lock(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setattr(ownership, "BEAT_SECONDS", 0.01)
    lock_of(folder).write_text(text)
    with RunFolder.open(configured(folder)):
        pass


def test_an_owner_on_another_host_lives_as_long_as_it_touches_its_lock(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ownership, "BEAT_SECONDS", 0.02)
    other = {"host": "other", "pid": 3, "job": "12", "machine": "elsewhere"}
    lock = lock_of(folder, **other)
    owner = ownership.Ownership(lock, json.loads(lock.read_text()))
    assert refusal(configured(folder)) == (
        f"run.folder: expected {folder} to be free, got a run that is still going (host other, pid 3, job 12); "
        "wait for it, or use another folder"
    )
    owner._ended.set()  # killed: the lock stays, and is touched no more
    time.sleep(0.1)
    with RunFolder.open(configured(folder)):
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_neither_another_host_name_nor_another_time_of_day_makes_a_living_owner_dead(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with RunFolder.open(configured(folder)):
        monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: 3600.0)
        monkeypatch.setattr(time, "time", lambda: 0.0)
        assert "still going" in refusal(configured(folder))


def test_a_lock_that_was_taken_over_is_not_removed_by_its_former_owner_who_learns_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ownership, "BEAT_SECONDS", 0.01)
    with RunFolder.open(configured(folder)) as run:
        assert run.ownership is not None
        assert run.ownership.taken_over is None
        lock = lock_of(folder, host="other", pid=5)
        end = time.monotonic() + 10
        while run.ownership.taken_over is None and time.monotonic() < end:
            time.sleep(0.01)
        assert run.ownership.taken_over == "host other, pid 5"
    assert lock.exists()


def test_the_lock_is_released_when_the_run_fails(folder: Path):
    with pytest.raises(ZeroDivisionError), RunFolder.open(configured(folder)):
        raise ZeroDivisionError
    assert not (folder / "lock").exists()


def test_a_file_in_the_way_is_one_line(tmp_path: Path):
    (tmp_path / "runs").write_text("")
    assert refusal(configured(tmp_path / "runs" / "one")).startswith("run.folder: expected a folder that can be written, got ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_line(tmp_path: Path):
    tmp_path.chmod(0o500)
    assert refusal(configured(tmp_path / "one")).startswith("run.folder: expected a folder that can be written, got ")


def test_a_full_disk_is_one_line_and_leaves_no_lock(folder: Path, monkeypatch: pytest.MonkeyPatch):
    real = write_atomically

    def full(path: Path, text: str) -> None:
        if path.name != "lock":
            raise OSError(28, "No space left on device")
        real(path, text)

    monkeypatch.setattr(run_folder, "write_atomically", full)
    assert refusal(configured(folder)) == f"run.folder: expected to write to {folder}, got No space left on device; free space there"
    assert not (folder / "lock").exists()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "report.json"
    write_atomically(path, "old")

    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "log.txt", "wandb_id", "lock", ".opening"])
@pytest.mark.parametrize(("make", "got"), [(os.mkfifo, "a pipe or a device"), (os.mkdir, "a folder")])
def test_a_pipe_or_a_folder_in_a_files_place_is_one_line_and_no_waiting(folder: Path, name: str, make: Any, got: str):
    folder.mkdir(parents=True)
    make(folder / name)
    with pytest.raises(LaunchError, match=f"{name}: expected a file, got {got}; move it away"), RunFolder.open(configured(folder)):
        pass


def test_a_configuration_or_id_that_is_no_text_is_one_line(folder: Path):
    with RunFolder.open(configured(folder)) as run:
        (folder / "wandb_id").write_bytes("ab".encode("utf-16"))
        with pytest.raises(LaunchError, match="wandb_id: expected UTF-8, got invalid start byte at byte 0"):
            _ = run.wandb_id
    (folder / "config.yaml").write_bytes("run: {}".encode("utf-16"))
    with (
        pytest.raises(LaunchError, match=r"config\.yaml: expected UTF-8, got invalid start byte at byte 0"),
        RunFolder.open(configured(folder)),
    ):
        pass


def test_a_run_whose_teacher_is_the_student_of_a_run_names_that_run_as_its_parent(tmp_path: Path):
    parent = RunFolder(tmp_path / "first")
    (parent.folder / "student").mkdir(parents=True)
    values = {"run": {"folder": str(tmp_path / "second")}, "data": {"shards": "s"}, "teacher": {"model": str(parent.student)}}
    values |= {"objective": [{"kind": "mlm"}], "train": {"updates": 2, "global_batch": 2, "micro_batch": 1}}
    config, run = config_of(values, "test"), RunFolder(tmp_path / "second")
    run.folder.mkdir()
    run.record(config)
    before = run.origin(config, {})["origin"]["parents"]
    parent_id = parent.wandb_id
    origin = run.origin(config, {"data.shards": "abc"})["origin"]
    assert (before, origin["contents"]) == ({}, {"data.shards": "abc"})
    assert origin["parents"] == {"teacher.model": {"name": "first", "wandb_id": parent_id}}
