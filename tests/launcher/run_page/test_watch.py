"""`stillhouse watch`: the numbers of a folder as it grows, at every width, until the run ends."""

import io
import json
import os
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console
from run_folders import HOSTILE, LINES, event, heldout, make_run, train

from launcher.cli import main
from launcher.errors import LaunchError
from launcher.run_folder import lock
from launcher.run_page.follow import KEPT, Follower
from launcher.run_page.watch import BLOCKS, Watch, _follow, screen, sparkline


def shown(watch: Watch, width: int) -> list[str]:
    text = io.StringIO()
    state = watch.look()
    Console(file=text, width=width, color_system=None).print(screen(watch, state, width))
    return text.getvalue().splitlines()


def append(folder: Path, *lines: dict) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def test_a_file_that_grows_is_read_once_and_a_replaced_one_again(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    follower = Follower(path)
    follower.look()
    assert follower.newest == 0
    whole = json.dumps(train(10)) + "\n"
    path.write_text(whole + json.dumps(train(20))[:40])
    follower.look()
    assert (follower.newest, follower.losses) == (10, [20.0])
    path.write_text(whole + json.dumps(train(20)) + "\nno json\n[1]\n" + json.dumps(heldout(20)) + "\n")
    follower.look()
    assert (follower.newest, len(follower.losses), len(follower.heldout)) == (20, 2, 1)
    (tmp_path / "new").write_text(whole + json.dumps(train(12)) + "\n" + json.dumps(train(14)) + "\n" * 500)
    (tmp_path / "new").replace(path)  # as a run does that goes on from a checkpoint
    follower.look()
    assert (follower.newest, len(follower.losses)) == (14, 3)


def test_the_losses_of_a_long_run_are_bounded(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"kind": "train", "update": {n}, "loss": {n}}}\n' for n in range(1, 20_001)))
    follower = Follower(path)
    follower.look()
    assert KEPT // 2 <= len(follower.losses) <= KEPT
    assert follower.train["loss"] == 20_000


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_every_number_is_shown_whole_at_every_width(tmp_path: Path, width: int):
    folder = make_run(tmp_path / "run", lines=[*LINES[:-1], event(100, "note", f"{HOSTILE} [bold]{'x' * 300}")], done=False)
    lines = shown(Watch(folder), width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for words in ("update 100/100 (100.0 %), 25,600 tokens", "5.400", "0.26", "4.100 (before: 4.200)", "1,100", "1.50 GB", "11.000"):
        assert words in text, words
    assert "1 warning, the last at update 50" in text
    assert "[bold]" in text or width == 60
    assert text.startswith("run: ended after update 100 without a final event")


def test_a_sparkline_falls_with_its_values():
    assert sparkline([8.0, 7, 6, 5, 4, 3, 2, 1], 60) == BLOCKS[::-1]
    assert sparkline([1.0, 1.0], 60) == BLOCKS[0] * 2
    assert len(sparkline([float(n) for n in range(1000)], 55)) == 55


def test_a_running_run_is_followed_until_it_ends(tmp_path: Path):
    """The lock of this process stands for a run; it is given back as a run does at its end."""
    folder = make_run(tmp_path / "run", lines=LINES[:3], done=False)
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True, color_system=None)
    with lock.owned(folder):
        watch = Watch(folder)
        watch.ask()
        assert f"running (host {os.uname().nodename}, pid {os.getpid()}" in shown(watch, 160)[0]
        assert "1 min 00 s left" in " ".join(shown(watch, 160))
        thread = threading.Thread(target=_follow, args=(watch, watch.look(), 0.05, console))
        thread.start()
        append(folder, train(30, loss=7.125))
        end = time.monotonic() + 10
        while "7.125" not in text.getvalue():
            assert time.monotonic() < end
            time.sleep(0.02)
        assert thread.is_alive()
        append(folder, event(30, "stopped", "saved after update 30", reason="requested"))
    thread.join(10)
    assert not thread.is_alive()
    assert "stopped on request at update 30" in text.getvalue()


def test_once_prints_once_without_a_terminal(tmp_path: Path, monkeypatch, capsys):
    folder = make_run(tmp_path / "run")
    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr("sys.argv", ["stillhouse", "watch", str(folder), "--once"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("run: done\n")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_run_without_a_line_and_a_folder_that_is_no_run(tmp_path: Path):
    assert shown(Watch(make_run(tmp_path / "new", lines=[], done=False)), 80) == ["new: not started: no update yet"]
    with pytest.raises(LaunchError, match=r"expected a run folder with config\.yaml, got none; check the path"):
        Watch(tmp_path)


def test_titles_begin_small_and_abbreviations_stay(tmp_path: Path):
    watch = Watch(make_run(tmp_path / "run", lines=[train(10, **{"kl": 0.5, "utilisation": 0.25, "tflops": 1.5, "cka/0": 0.75})]))
    text = " ".join(" ".join(shown(watch, 100)).split())
    for words in (
        "KL from the teacher, training tokens 0.5",
        "model FLOPs utilisation 25.0 %",
        "TFLOP/s of the models 1.500",
        "CKA with the nearest teacher layer: layer 0 0.75",
    ):
        assert words in text, words
