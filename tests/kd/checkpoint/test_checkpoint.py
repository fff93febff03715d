"""Checkpoints are whole or absent: round trips, every kind of damage, and a disk that fills up."""

import errno
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_states import progress, state

from kd.checkpoint import checkpoint, on_disk
from kd.checkpoint.checkpoint import load_state
from kd.errors import KdError


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    written = state()
    folder = checkpoint.write(tmp_path, progress(12, heldout_loss=2.5), iter(written))
    found, passed_over = on_disk.newest_good(tmp_path)
    assert passed_over == []
    assert found.folder == folder
    assert found.progress == progress(12, heldout_loss=2.5)
    weights, moments = load_state(found)
    assert set(weights) == {name for name, _, _ in written}
    for name, weight, kept in written:
        assert torch.equal(weights[name], weight)
        assert all(torch.equal(moments[name][key], value) for key, value in kept.items())
    assert "student.frozen" not in moments
    assert (tmp_path / "latest").read_text() == "update-00000012\n"


@pytest.mark.parametrize("file", ["weights.safetensors", "moments.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "empty"])
def test_a_damaged_newest_is_passed_over_and_named(tmp_path: Path, file: str, damage: str) -> None:
    for done in (5, 10):
        checkpoint.write(tmp_path, progress(done), state(done))
    hurt(tmp_path / "update-00000010" / file, damage)
    found, passed_over = on_disk.newest_good(tmp_path)
    assert found.progress.done == 5
    assert len(passed_over) == 1
    assert "update-00000010" in passed_over[0]
    assert "not usable" in passed_over[0]


def hurt(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
        return
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes(b"" if damage == "empty" else data[: len(data) // 2] if damage == "truncate" else data)


def test_every_flipped_byte_of_the_state_is_noticed(tmp_path: Path) -> None:
    folder = checkpoint.write(tmp_path, progress(3), state())
    original = (folder / "state.json").read_bytes()
    for at in range(0, len(original), 3):
        broken = bytearray(original)
        broken[at] ^= 0x20
        (folder / "state.json").write_bytes(broken)
        try:
            read = on_disk.read(folder)
        except KdError:
            continue
        assert read.progress == progress(3)  # white space alone


def test_all_bad_is_no_checkpoint_with_a_line_for_each(tmp_path: Path) -> None:
    for done in (1, 2, 3):
        checkpoint.write(tmp_path, progress(done), state())
        hurt(tmp_path / f"update-0000000{done}" / "weights.safetensors", "flip")
    found, passed_over = on_disk.newest_good(tmp_path)
    assert found is None
    assert len(passed_over) == 3


def test_another_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = checkpoint.write(tmp_path, progress(3), state())
    body = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(body | {"format": 99}))
    with pytest.raises(KdError, match="format 1, got 99"):
        on_disk.read(folder)


def test_writing_the_same_update_again_replaces_it(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, progress(4), state(1))
    checkpoint.write(tmp_path, progress(4), state(2))
    found, _ = on_disk.newest_good(tmp_path)
    assert torch.equal(load_state(found)[0]["student.frozen"], state(2)[-1][1])


def test_pruning_keeps_the_newest_and_the_best_and_clears_unfinished_writes(tmp_path: Path) -> None:
    for done, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5), (5, None)):
        checkpoint.write(tmp_path, progress(done, **({} if loss is None else {"heldout_loss": loss})), state())
    (tmp_path / ".writing-update-00000006").mkdir()
    on_disk.prune(tmp_path, keep_last=2, keep_best=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "update-00000002", "update-00000004", "update-00000005"]


def test_a_failed_write_leaves_the_last_good_one_and_nothing_else(tmp_path: Path) -> None:
    """A real limit of the operating system: files of more than 20 kB cannot be written (as on a full disk, an OSError midway)."""
    checkpoint.write(tmp_path, progress(1), state())
    code = f"""
import resource, signal, sys
sys.path[:0] = [{str(Path.cwd())!r}, {str(Path(__file__).parents[2] / "helpers")!r}]
from pathlib import Path
from kd.checkpoint import checkpoint, on_disk
from checkpoint_states import progress, state
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, {resource.RLIM_INFINITY}))
try:
    checkpoint.write(Path({str(tmp_path)!r}), progress(2), state(0, size=5000))
except OSError as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.startswith("refused:")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "update-00000001"]
    found, passed_over = on_disk.newest_good(tmp_path)
    assert found.progress.done == 1
    assert passed_over == []


def test_no_pickle_is_ever_in_a_checkpoint(tmp_path: Path) -> None:
    folder = checkpoint.write(tmp_path, progress(1), state())
    assert sorted(p.name for p in folder.iterdir()) == ["moments.safetensors", "state.json", "weights.safetensors"]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "many", None, [1]])
@pytest.mark.parametrize("place", ["done", "skipped", "tokens", "bytes"])
def test_numbers_that_are_none_are_passed_over_even_under_a_right_digest(tmp_path: Path, place: str, value: object) -> None:
    checkpoint.write(tmp_path, progress(5), state())
    path = checkpoint.write(tmp_path, progress(10), state()) / "state.json"
    body = json.loads(path.read_text())
    del body["digest"]
    where = body["files"]["weights.safetensors"] if place == "bytes" else body
    where[place] = value
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps(body | {"digest": digest}))
    found, (line,) = on_disk.newest_good(tmp_path)
    assert found is not None
    assert found.progress.done == 5
    assert line.startswith(f"{path}: expected a checkpoint's state, got ")


def test_a_state_nested_without_end_or_a_pipe_in_its_place_is_passed_over(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, progress(5), state())
    deep = checkpoint.write(tmp_path, progress(10), state()) / "state.json"
    deep.write_text("[" * 200_000)
    pipe = checkpoint.write(tmp_path, progress(15), state()) / "state.json"
    pipe.unlink()
    os.mkfifo(pipe)
    found, (first, second) = on_disk.newest_good(tmp_path)
    assert found is not None
    assert found.progress.done == 5
    assert first == f"{pipe}: expected a file, got something else; the checkpoint is not usable"
    assert second.startswith(f"{deep}: expected a checkpoint's state, got RecursionError")


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("file", ["weights.safetensors", "moments.safetensors", "state.json"])
def test_a_checkpoint_that_cannot_be_read_is_passed_over_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, file: str
) -> None:
    for done in (5, 10):
        checkpoint.write(tmp_path, progress(done), state(done))
    bad, open_ = tmp_path / "update-00000010" / file, io.open

    def opened(path: object, *rest: object, **more: object) -> object:
        if str(path) == str(bad):
            raise OSError(number, os.strerror(number), str(path))
        return open_(path, *rest, **more)

    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr("builtins.open", opened)
    found, passed_over = on_disk.newest_good(tmp_path)
    assert found.progress.done == 5
    (line,) = passed_over
    assert str(bad) in line
    assert os.strerror(number) in line
