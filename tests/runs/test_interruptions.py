"""A run that is killed, stopped, starved of disk or moved to other ranks, against one that was left alone."""

import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch
from run_lines import facts, lines, train_lines
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.faults]
HASTY = {"launcher.training.rank_watch.BEAT_SECONDS": 0.5}
"""Half of what a user waits for before a lost rank is named."""
SETTINGS = ("train.updates=24", "checkpoint.every_updates=3", "report.every_updates=1", "evaluate.every_updates=8")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student" / "model.safetensors")


def assert_same_run(run: Path, undisturbed: Path) -> None:
    """Bit-identical weights, and metrics without gap or repeat."""
    assert facts(run) == facts(undisturbed)
    assert facts(run, "heldout") == facts(undisturbed, "heldout")
    expected = weights(undisturbed)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(run).items())


@pytest.fixture(scope="module")
def undisturbed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed") / "run"


@pytest.fixture
def undisturbed(undisturbed_folder: Path, start) -> Path:
    """The two-rank run that nothing happens to, made once."""
    if not undisturbed_folder.exists():
        run = start(undisturbed_folder, *SETTINGS, ranks=2)
        assert run.wait() == [0, 0], run.output
        assert [line["update"] for line in train_lines(undisturbed_folder)] == list(range(1, 25))
    return undisturbed_folder


def test_the_newest_checkpoints_and_the_best_one_are_kept(undisturbed):
    kept = {int(path.name.removeprefix("update-")) for path in (undisturbed / "checkpoints").glob("update-*")}
    best = min(lines(undisturbed, "heldout"), key=lambda line: line["heldout_loss"])["update"]
    assert kept == {21, 24, best}


def test_killed_three_times_at_random_updates_it_ends_bit_identical(start, tmp_path, undisturbed):
    draw = random.Random()
    moments = sorted(draw.sample(range(1, 23), 3))
    print("killed when these updates were reported:", moments)
    folder = tmp_path / "killed"
    for moment, victims in zip(moments, ([1], [0, 1], [0, 1]), strict=True):
        run = start(folder, *SETTINGS, ranks=2, constants=HASTY)
        run.wait_for_update(moment)
        for victim in victims:
            os.kill(run.processes[victim].pid, signal.SIGKILL)
        codes = run.wait(60)
        assert codes == [-9, -9] if len(victims) == 2 else codes in ([76, -9], [0, 0]), run.output
        assert codes[0] != 76 or "lost rank 1 on " in run.output
    run = start(folder, *SETTINGS, ranks=2)
    assert run.wait() == [0, 0], run.output
    assert_same_run(folder, undisturbed)
    assert sum(line["event"] == "resumed" for line in lines(folder, "event")) >= 1


@pytest.mark.parametrize(("ranks", "stage", "micro_batch"), [(1, 0, 8), (1, 3, 4), (4, 1, 2)])
def test_on_other_ranks_and_another_stage_and_back_it_sees_the_same_windows_and_its_losses_agree(
    start, tmp_path, undisturbed, ranks, stage, micro_batch
):
    folder = tmp_path / "moved"
    shutil.copytree(undisturbed, folder)
    for newer in sorted((folder / "checkpoints").glob("update-*"))[1:]:
        shutil.rmtree(newer)
    shutil.rmtree(folder / "student")
    first = int(next((folder / "checkpoints").glob("update-*")).name.removeprefix("update-"))
    assert first < 24
    moved = (f"train.zero_stage={stage}", f"train.micro_batch={micro_batch}")
    run = start(folder, *SETTINGS, *moved, ranks=ranks)
    assert run.wait() == [0] * ranks, run.output
    before, after = train_lines(undisturbed), train_lines(folder)
    assert [line["tokens"] for line in after] == [line["tokens"] for line in before]
    assert [line["loss"] for line in after] == pytest.approx([line["loss"] for line in before], rel=2e-5)
    expected = weights(undisturbed)
    assert all(torch.allclose(weight, expected[name], atol=2e-4) for name, weight in weights(folder).items())

    shutil.rmtree(sorted((folder / "checkpoints").glob("update-*"))[-1])  # and back to two ranks, from what the others saved
    shutil.rmtree(folder / "student")
    back = start(folder, *SETTINGS, ranks=2)
    assert back.wait() == [0, 0], back.output
    again = train_lines(folder)
    assert [line["tokens"] for line in again] == [line["tokens"] for line in before]
    assert [line["loss"] for line in again] == pytest.approx([line["loss"] for line in before], rel=2e-5)
    assert lines(folder, "event")[-1]["event"] == "finished"


def test_a_signal_saves_and_leaves_with_a_code_of_its_own_and_the_run_goes_on(start, tmp_path, undisturbed):
    folder = tmp_path / "stopped"
    for number, moment in ((signal.SIGTERM, 2), (signal.SIGINT, 7), (signal.SIGUSR2, 13)):
        run = start(folder, *SETTINGS, ranks=2)
        run.wait_for_update(moment)
        run.signal(number)
        if number == signal.SIGTERM:
            run.signal(number)  # again: it goes on saving
        assert run.wait() == [75, 75], run.output
        stopped = lines(folder, "event")[-1]
        assert stopped["event"] == "stopped"
        newest = max(path.name for path in (folder / "checkpoints").glob("update-*"))
        assert newest == f"update-{stopped['update']:08d}"
    run = start(folder, *SETTINGS, ranks=2, arguments=("--resume",))
    assert run.wait() == [0, 0], run.output
    assert_same_run(folder, undisturbed)


def test_a_disk_that_fills_up_while_saving_leaves_the_last_good_checkpoint_and_says_so(start, tmp_path, undisturbed):
    folder = tmp_path / "full"
    first = start(folder, *SETTINGS, ranks=2)
    first.wait_for_update(4)
    first.kill()
    good = {path.name for path in (folder / "checkpoints").glob("update-*")}
    assert good

    full = start(folder, *SETTINGS, ranks=2, limits={"RLIMIT_FSIZE": 100_000}, constants=HASTY)
    assert full.wait() == [1, 1], full.output
    failed = [line for line in lines(folder, "event") if line["event"] == "checkpoint_failed"]
    assert failed
    assert "the last good one is kept" in failed[0]["message"]
    assert {path.name for path in (folder / "checkpoints").glob("update-*")} == good
    assert not (folder / "student").exists()
    again = start(folder, *SETTINGS, ranks=2)
    assert again.wait() == [0, 0], again.output
    assert_same_run(folder, undisturbed)


def test_a_damaged_newest_checkpoint_is_passed_over_and_said(start, tmp_path, undisturbed):
    folder = tmp_path / "damaged"
    shutil.copytree(undisturbed, folder)
    shutil.rmtree(folder / "student")
    newest = max((folder / "checkpoints").glob("update-*"))
    file = newest / "moments.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 4
    file.write_bytes(data)
    run = start(folder, *SETTINGS, ranks=2)
    assert run.wait() == [0, 0], run.output
    assert f"passed over: {file}" in run.output
    assert_same_run(folder, undisturbed)


def test_updates_that_are_not_finite_are_skipped_named_and_end_the_run_with_the_facts(start, tmp_path, school):
    teacher = tmp_path / "poisoned"
    shutil.copytree(school.teacher, teacher)
    from safetensors.torch import save_file  # noqa: PLC0415

    spoilt = load_file(teacher / "model.safetensors")
    spoilt["cls.predictions.bias"][7] = 3.4e38  # finite in the file; infinite in the teacher's bf16
    save_file(spoilt, teacher / "model.safetensors", metadata={"format": "pt"})
    folder = tmp_path / "run"
    settings = ("train.max_bad_updates=3", f"teacher.model={teacher}", "teacher.precision=bf16")
    run = start(folder, *SETTINGS, *settings, ranks=2)
    assert run.wait() == [3, 3], run.output
    events = lines(folder, "event")
    skipped = [line for line in events if line["event"] == "skipped_update"]
    assert [line["update"] for line in skipped] == [1, 2, 3]
    assert "windows [" in skipped[0]["message"]
    assert "the teacher's head not finite" in skipped[0]["message"]
    assert len(set(skipped[0]["windows"])) == 8, "those of both ranks"
    assert events[-1]["event"] == "stopped"
    assert "3 updates in a row" in events[-1]["message"]
