"""Writing beside the training: what is written is what was, whatever the training does meanwhile; a failure is told, not raised."""

import threading
from pathlib import Path

import pytest
import torch
from checkpoint_states import progress, state

from kd.checkpoint import checkpoint, on_disk, tensors
from kd.checkpoint.background_writer import BackgroundWriter
from kd.checkpoint.checkpoint import load_state


def test_training_goes_on_while_a_slow_disk_takes_the_bytes_and_they_are_those_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    let_go = threading.Event()
    sync_path = checkpoint.sync_path
    monkeypatch.setattr(checkpoint, "sync_path", lambda path: (let_go.wait(30), sync_path(path)))
    checkpoint_state = state()
    before = [weight.clone() for _, weight, _ in checkpoint_state]
    writer = BackgroundWriter()
    writer.write(tmp_path, progress(3), iter(checkpoint_state))
    assert writer.take(wait=False) is None
    for _, weight, moments in checkpoint_state:  # an update, in place
        weight.add_(1)
        for moment in moments.values():
            moment.mul_(2)
    assert not list(tmp_path.glob("update-*")), "nothing has the checkpoint's name before it is whole"
    let_go.set()
    written = writer.take(wait=True)
    assert (written.update, written.error) == (3, "")
    found, passed_over = on_disk.newest_good(tmp_path)
    assert passed_over == []
    assert written.bytes == found.bytes == sum(path.stat().st_size for path in found.folder.glob("*.safetensors"))
    assert all(torch.equal(load_state(found)[0][name], old) for (name, _, _), old in zip(checkpoint_state, before, strict=True))
    assert writer.take(wait=True) is None, "told once"


def test_a_failure_is_told_and_the_next_one_may_follow(tmp_path: Path):
    writer = BackgroundWriter()
    (tmp_path / "file").write_text("")
    writer.write(tmp_path / "file", progress(1), state())
    assert "Not a directory" in writer.take(wait=True).error
    writer.write(tmp_path / "folder", progress(2), state())
    assert writer.take(wait=True).error == ""


def test_a_disk_that_keeps_other_bytes_than_it_was_given_is_found_before_the_old_checkpoint_goes(tmp_path: Path, monkeypatch):
    checkpoint.write(tmp_path, progress(1), state())
    save = tensors.save_file

    def lying(tensors: dict[str, torch.Tensor], path: Path) -> None:
        save(tensors, path)
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(tensors, "save_file", lying)
    with pytest.raises(OSError, match=r"read back other numbers for .* than were written"):
        checkpoint.write(tmp_path, progress(2), state(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "update-00000001"]


def test_a_file_that_cannot_be_opened_to_be_read_back_is_a_failed_write_and_no_end_of_the_run(tmp_path: Path, monkeypatch):
    def no_more(path: Path, framework: str) -> None:
        raise RuntimeError(f"unable to open file <{path}> in read-only mode: Too many open files (24)")  # torch's words

    monkeypatch.setattr(tensors, "safe_open", no_more)
    with pytest.raises(OSError, match=r"weights.safetensors: .*Too many open files"):
        tensors.save_tensors({"a": torch.ones(1)}, tmp_path / "weights.safetensors")


def test_numbers_that_are_not_finite_are_kept_as_they_are(tmp_path: Path):
    broken = [("weight", torch.tensor([1.0, float("nan"), float("-inf")]), {})]
    checkpoint.write(tmp_path, progress(1), broken)
    found, _ = on_disk.newest_good(tmp_path)
    assert torch.equal(load_state(found)[0]["weight"].view(torch.int32), broken[0][1].view(torch.int32))


def test_the_newest_good_one_from_before_an_update(tmp_path: Path):
    for done in (3, 6, 9):
        checkpoint.write(tmp_path, progress(done), state())
    (tmp_path / "update-00000006" / "weights.safetensors").write_bytes(b"")
    found, passed_over = on_disk.newest_good(tmp_path, before=9)
    assert found.progress.done == 3
    assert len(passed_over) == 1
    assert on_disk.newest_good(tmp_path, before=3) == (None, [])
