"""Whole runs in this process that meet damaged shards, numbers that are not finite, leaping losses and disks that fail."""

import importlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deepspeed.comm import comm
from deepspeed.utils import groups
from run_lines import facts, lines, train_lines
from safetensors.torch import load_file

from data_shards.corpus import Corpus
from data_shards.errors import DamagedFile
from data_shards.storage.manifest import Manifest
from data_shards.storage.shard import Shard
from data_shards.stream.order import Order
from data_shards.stream.packed import PackedWindows
from kd.checkpoint import on_disk
from kd.checkpoint.checkpoint import load_state
from kd.distributed import process_group
from kd.training.trainer import Trainer
from launcher.config.load import load_config
from launcher.errors import LaunchError, SharedError
from launcher.planning.plan import make_plan
from launcher.process.signals import StopFlag
from launcher.training import checkpoints, session
from launcher.training.build import data_of

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.filterwarnings("ignore")]  # of torch and DeepSpeed
SETTINGS = (
    "train.updates=18",
    "checkpoint.every_updates=3",
    "report.every_updates=1",
    "evaluate.every_updates=9",
    "checkpoint.every_minutes=null",
)
At = Callable[[Trainer], None]


class Crash(BaseException):
    """A process that dies: nothing is saved on its way out."""


@pytest.fixture(scope="module", autouse=True)
def one_process() -> Iterator[None]:
    """A world of one that outlives each run, whatever tests of other files began or left in this process."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    forget_the_group()
    yield
    forget_the_group()
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(kept)


def forget_the_group() -> None:
    """Leave torch's process group, and what DeepSpeed keeps of it for good."""
    process_group.stop()
    comm.cdb = None
    importlib.reload(groups)


@pytest.fixture
def run(school, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """run(folder, *settings, before={}): a whole run; before[n](trainer) is called ahead of update n."""
    monkeypatch.setattr(process_group, "stop", lambda: None)
    monkeypatch.setattr(StopFlag, "install", classmethod(lambda cls: cls()))

    def start(folder: Path, *settings: str, before: dict[int, At] | None = None, shards: Path | None = None) -> int:
        own = (f"run.folder={folder}", f"data.shards={shards or school.shards}", f"teacher.model={school.teacher}")
        with monkeypatch.context() as patch:
            learn = Trainer.update

            def update(self: Trainer, batches: Any, look: bool = False) -> Any:
                (before or {}).get(self.done + 1, lambda trainer: None)(self)
                return learn(self, batches, look)

            patch.setattr(Trainer, "update", update)
            config = load_config("tiny", [*own, *SETTINGS, *settings])
            corpus = Corpus.open(config.data.shards)
            return session.main(config, make_plan(config, 1, corpus), data_of(config, corpus))

    return start


def crash(trainer: Trainer) -> None:
    raise Crash


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student" / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(weight, other[name]) for name, weight in one.items())


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    return [line for line in lines(folder, "event") if line["event"] == name]


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain") / "run"


@pytest.fixture
def plain(plain_folder: Path, run) -> Path:
    """The run that nothing happens to, made once."""
    if not plain_folder.exists():
        assert run(plain_folder) == 0
    return plain_folder


@pytest.fixture
def damaged(school, tmp_path: Path) -> Path:
    """The shards with one bit flipped in the first block of the one that update 6 begins with; only its number is left out of the names."""
    folder = tmp_path / "shards"
    shutil.copytree(school.shards, folder)
    manifest = Manifest.load(folder)
    windows = PackedWindows(folder, "train", 32)
    first = Order(windows.shard_windows, lanes=4, seed=1).locate(np.array([5 * 8]))[0][0]
    number = int(np.searchsorted(np.cumsum(windows.shard_windows), first, side="right"))
    entry = manifest.entries("train")[number]
    path = folder / entry.name
    content = bytearray(path.read_bytes())
    content[Shard.open(folder, entry, dtype=manifest.dtype).blocks[0].tokens_at + 2] ^= 1
    path.write_bytes(content)
    return folder


def test_a_damaged_shard_stops_a_run_and_a_restart_may_skip_it_and_says_so(run, start, damaged, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(DamagedFile, match=r"train-\d+\.tar, key \d+-00000: expected the tokens that were written"):
        run(folder, shards=damaged)
    assert run(folder, "data.on_corrupt=skip", shards=damaged) == 0
    (event,) = events(folder, "skipped_shard")
    assert f"{event['shard']}, key {event['shard'][6:12]}-00000: expected the tokens" in event["message"]
    assert train_lines(folder)[-1]["skipped_shards"] == 1
    two = start(tmp_path / "two", *SETTINGS, "data.on_corrupt=skip", f"data.shards={damaged}", ranks=2)
    assert two.wait() == [0, 0], two.output
    assert [line["tokens"] for line in train_lines(tmp_path / "two")] == [line["tokens"] for line in train_lines(folder)]
    assert [line["loss"] for line in train_lines(tmp_path / "two")] == pytest.approx(
        [line["loss"] for line in train_lines(folder)], rel=2e-5
    )
    (there,) = events(tmp_path / "two", "skipped_shard")
    assert there["update"] == event["update"], "counted when the windows' turn came, whatever was fetched ahead"


def test_more_damaged_shards_than_allowed_stop_the_run_by_name(run, damaged, tmp_path):
    with pytest.raises(SharedError, match=r"data\.max_skipped_shards: expected at most 0 damaged shards, got 1 \(train-\d+\.tar\)"):
        run(tmp_path / "run", "data.on_corrupt=skip", "data.max_skipped_shards=0", shards=damaged)


def test_saving_beside_the_training_changes_nothing_but_the_pause(run, plain, tmp_path):
    folder = tmp_path / "run"
    assert run(folder, "checkpoint.asynchronous=true") == 0
    assert equal(weights(folder), weights(plain))
    assert facts(folder) == facts(plain)
    saved = events(folder, "checkpoint")
    assert {int(event["message"].split()[3]) for event in saved} == {3, 6, 9, 12, 15, 18}
    newest, _ = on_disk.newest_good(folder / "checkpoints")
    assert all(event["bytes"] == newest.bytes and event["seconds"] >= event["paused_seconds"] > 0 for event in saved)


def test_a_run_that_dies_while_a_checkpoint_is_being_written_beside_it_ends_bit_identical(run, plain, tmp_path):
    folder = tmp_path / "run"
    for moment in (5, 11):
        with pytest.raises(Crash):
            run(folder, "checkpoint.asynchronous=true", before={moment: crash})
    assert run(folder, "checkpoint.asynchronous=true") == 0
    assert equal(weights(folder), weights(plain))
    assert facts(folder) == facts(plain)


def poison(trainer: Trainer) -> None:
    """This update's gradient is not finite."""
    weight = next(trainer.student.parameters())
    handles = [weight.register_hook(lambda gradient: gradient * float("nan"))]
    finish = trainer.engine.finish_update

    def once() -> torch.Tensor:
        handles.pop().remove()
        trainer.engine.finish_update = finish
        return finish()

    trainer.engine.finish_update = once


def test_a_gradient_that_is_not_finite_is_skipped_with_the_windows_of_the_whole_update(run, plain, tmp_path):
    folder = tmp_path / "run"
    assert run(folder, before={4: poison, 9: poison}) == 0
    skipped = events(folder, "skipped_update")
    assert [event["update"] for event in skipped] == [4, 9]
    assert all("gradient not finite, weights left as they were; windows [" in event["message"] for event in skipped)
    assert all(len(set(event["windows"])) == 8 for event in skipped)
    assert train_lines(folder)[-1]["skipped_updates"] == 2


def test_a_student_whose_loss_is_not_finite_is_told_at_the_end(run, tmp_path):
    assert run(tmp_path / "run", "optimizer.learning_rate=1e10", "train.updates=3") == 0
    note = events(tmp_path / "run", "note")[-1]["message"]
    assert note.startswith("the held-out loss is nan: the student is of no use; lower optimizer.learning_rate"), note


def test_after_bad_updates_in_a_row_the_run_goes_back_to_the_checkpoint_before_them_and_on(run, plain, tmp_path):
    """Checkpoints after 3, 6, …; updates 7, 8 and 9 are bad: 6 made the weights that they met, so the weights after 3 are taken."""
    folder = tmp_path / "run"
    bad = {7: poison, 8: poison, 9: poison}
    settings = ("train.max_bad_updates=3", "train.roll_backs=1", "checkpoint.keep_last=9")
    assert run(folder, *settings, before=bad) == 0
    (back,) = events(folder, "rolled_back")
    assert "update 9: went back to the weights after update 3; updates 4 to 9 are not learned from; roll-back 1 of 1" in back["message"]
    after, before = (on_disk.read(folder / "checkpoints" / f"update-0000000{n}") for n in (9, 3))
    assert equal(load_state(after)[0], load_state(before)[0])
    assert (after.progress.done, after.progress.skipped) == (9, 6)
    assert train_lines(folder)[8]["tokens"] == train_lines(plain)[8]["tokens"], "the stream has moved on"
    again = tmp_path / "again"
    for moment in (8, 12):  # before and after the roll-back
        with pytest.raises(Crash):
            run(again, *settings, before={n: do for n, do in bad.items() if n < moment} | {moment: crash})
    assert run(again, *settings, before=bad) == 0
    assert equal(weights(again), weights(folder))
    assert facts(again) == facts(folder)


def test_without_roll_backs_left_bad_updates_in_a_row_stop_the_run(run, tmp_path):
    folder = tmp_path / "run"
    bad = dict.fromkeys(range(5, 19), poison)
    assert run(folder, "train.max_bad_updates=2", "train.roll_backs=1", before=bad) == 3
    assert len(events(folder, "rolled_back")) == 1
    assert "2 updates in a row were not finite after 1 roll-back" in events(folder, "stopped")[0]["message"]


def test_a_leaping_loss_is_counted_or_undone(run, tmp_path):
    def leap(trainer: Trainer) -> None:
        """Weights that some update might have left: every loss is large from now on."""
        with torch.no_grad():
            bias = trainer.student.decoder_bias
            bias.add_(40 * torch.randn(bias.shape, generator=torch.Generator().manual_seed(1)))

    counted = tmp_path / "counted"
    assert run(counted, "train.spike_factor=1.5", "train.zero_stage=0", before={12: leap}) == 0
    spikes = events(counted, "loss_spike")
    assert [event["update"] for event in spikes] == list(range(12, 19))
    assert "times the median of the last 11" in spikes[0]["message"]
    assert train_lines(counted)[-1]["loss_spikes"] == 7
    undone = tmp_path / "undone"
    assert run(undone, "train.spike_factor=1.5", "train.zero_stage=0", "train.roll_backs=2", before={12: leap}) == 0
    assert [event["update"] for event in events(undone, "loss_spike")] == [12]
    assert "went back to the weights after update 9; updates 10 to 12 are not learned from" in events(undone, "rolled_back")[0]["message"]
    stopped = tmp_path / "stopped"
    assert run(stopped, "train.spike_factor=1.5", "train.zero_stage=0", "train.roll_backs=1", before={12: leap, 15: leap}) == 3
    assert "the loss leapt after 1 roll-back" in events(stopped, "stopped")[0]["message"]


def test_a_run_whose_checkpoints_are_all_damaged_is_one_line(run, plain, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(plain, folder)
    shutil.rmtree(folder / "student")
    kept = sorted((folder / "checkpoints").glob("update-*"))
    for number, name in enumerate(kept):
        file = name / ("state.json" if number else "weights.safetensors")
        file.write_bytes(file.read_bytes()[:-1])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(LaunchError, match=rf"expected a usable checkpoint, got {len(kept)} damaged; restore one, or use another folder"):
        run(folder, "train.prefetch_updates=3")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".owner"} == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MB, to be filled and emptied."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], check=False).returncode == 0
    )
    if not mounted:
        pytest.skip("a small disk: needs root and the right to mount")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> At:
    def now(trainer: Trainer) -> None:
        with open(disk / "ballast", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    return now


@pytest.mark.parametrize("asynchronous", ["false", "true"])
def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_nothing_else(run, plain, small_disk, monkeypatch, asynchronous):
    """Full before update 5, free again before 11: checkpoints fail, lines wait, and then all is as if nothing had been."""
    monkeypatch.setattr(checkpoints, "RETRY_SECONDS", 0.0)
    folder = small_disk / "run"
    before = {5: fill(small_disk), 11: lambda trainer: (small_disk / "ballast").unlink()}
    assert run(folder, f"checkpoint.asynchronous={asynchronous}", before=before) == 0
    failed = events(folder, "checkpoint_failed")
    assert failed
    assert all("the last good one is kept, the next try is within" in event["message"] for event in failed)
    assert all(5 <= event["update"] <= 11 for event in failed)
    assert facts(folder) == facts(plain)
    assert equal(weights(folder), weights(plain))


def test_a_quota_that_is_used_up_for_a_while_costs_checkpoints_and_nothing_else(run, plain, quota, monkeypatch):
    monkeypatch.setattr(checkpoints, "RETRY_SECONDS", 0.0)
    folder = quota.folder / "run"

    def free(trainer: Trainer) -> None:
        (quota.folder / "ballast").unlink()
        quota.limit("6m")

    assert run(folder, before={5: fill(quota.folder), 11: free}) == 0
    failed = events(folder, "checkpoint_failed")
    assert failed
    assert all("Disk quota exceeded" in event["message"] and 5 <= event["update"] <= 11 for event in failed)
    assert facts(folder) == facts(plain)
    assert equal(weights(folder), weights(plain))


def test_a_read_only_disk_stops_nothing_until_the_end_and_the_next_start_goes_on(run, plain, tmp_path):
    folder = tmp_path / "run"
    checkpoints = folder / "checkpoints"

    def lock(trainer: Trainer) -> None:
        subprocess.run(["mount", "--bind", str(checkpoints), str(checkpoints)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(checkpoints)], check=True)

    if os.geteuid() != 0:
        pytest.skip("a read-only mount: needs root and the right to mount")
    try:
        assert run(folder, before={5: lock}) == 1
    finally:
        subprocess.run(["umount", str(checkpoints)], check=True)
    assert "Read-only file system" in events(folder, "checkpoint_failed")[0]["message"]
    assert [path.name for path in sorted(checkpoints.glob("*"))] == ["latest", "update-00000003"]
    assert run(folder) == 0
    assert equal(weights(folder), weights(plain))
    assert facts(folder) == facts(plain)


def test_a_run_folder_that_vanishes_for_a_while_is_written_again(run, plain, tmp_path):
    folder, aside = tmp_path / "run", tmp_path / "aside"
    before = {5: lambda trainer: folder.rename(aside), 11: lambda trainer: aside.rename(folder)}
    assert run(folder, before=before) == 0
    assert equal(weights(folder), weights(plain))
    assert facts(folder) == facts(plain)


def test_a_student_that_cannot_be_written_is_one_event_and_the_next_start_writes_it(run, plain, tmp_path):
    folder = tmp_path / "run"

    def block(trainer: Trainer) -> None:
        (folder / "student").write_text("a file where the folder should be")

    assert run(folder, before={5: block}) == 1
    assert "the last checkpoint is whole: start again to export it" in events(folder, "export_failed")[0]["message"]
    (folder / "student").unlink()
    assert run(folder) == 0
    assert equal(weights(folder), weights(plain))


def test_a_checkpoint_knows_its_configuration_where_config_yaml_is_lost_or_edited(run, plain, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(plain, folder)
    shutil.rmtree(folder / "student")
    (folder / "config.yaml").unlink()
    with pytest.raises(
        SharedError, match=r"expected the configuration that .* began with, got another; .*\n  optimizer.learning_rate: .* -> 0\.2"
    ):
        run(folder, "optimizer.learning_rate=0.2")
