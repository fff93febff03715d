"""Reports from the outside: what is in metrics.jsonl, log.txt, on the screen, and in the file that W&B wrote."""

import argparse
import errno
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from wandb_server import inspected

from launcher.config.load import dump_config, load_run
from launcher.config.run_config import ReportSettings
from launcher.errors import LaunchError
from launcher.reporting import wandb
from launcher.reporting.reporters import Reporters
from launcher.reporting.wandb_replay import replay
from launcher.reporting.wandb_replay import run as replay_command
from launcher.run_folder.metrics_file import read, trim

ROOT = Path(__file__).parents[3]
OFFLINE = ReportSettings(wandb="offline", project="lab", tags=["tiny"])


def train(update: int, **more: object) -> dict[str, object]:
    values = {"kind": "train", "update": update, "updates": 20, "tokens": 100 * update, "tokens_total": 2000, "epoch": 0.25}
    values |= {"loss": 6.0 - update / 4, "loss/mlm": 3.5, "learning_rate": 5e-4, "gradient_norm": 1.25, "tokens_per_second": 1234.5}
    return values | {"seconds_left": 3725.0, "data_wait_share": 0.015, "memory_gb": 0.75, "skipped_updates": 0} | more


def heldout(update: int) -> dict[str, object]:
    return {"kind": "heldout", "update": update, "tokens": 100 * update, "heldout_loss": 4.5, "heldout_top1": 0.25, "heldout_top5": 0.5}


def event(update: int, name: str = "checkpoint", message: str = "saved") -> dict[str, object]:
    return {"kind": "event", "update": update, "event": name, "message": message}


def opened(folder: Path, settings: ReportSettings | None = None, terminal: bool = False) -> tuple[Reporters, io.StringIO]:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120)
    made = Reporters(settings or ReportSettings(), folder, name="run", config={"train": {"seed": 1}}, run_id="abcd1234", console=console)
    return made, screen


def test_every_line_is_in_the_metrics_as_it_was_given(tmp_path: Path):
    report, _ = opened(tmp_path)
    lines = [event(0, "started"), train(1), heldout(1), train(2)]
    for line in lines:
        report.line(line)
        assert read(tmp_path / "metrics.jsonl")[-1] == line  # flushed at once
    report.close()
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == lines


def test_an_error_of_wandb_that_quotes_a_password_is_said_without_it(tmp_path: Path):
    report, screen = opened(tmp_path)
    report.say("W&B: expected the server to answer, got Failed to authenticate with http://me:secret@host")
    report.close()
    assert "http://***@host" in (tmp_path / "log.txt").read_text()
    assert "secret" not in (tmp_path / "log.txt").read_text() + screen.getvalue()


def test_a_number_that_is_not_finite_is_null_in_the_metrics(tmp_path: Path):
    report, screen = opened(tmp_path)
    report.line(train(1, loss=float("nan"), gradient_norm=float("inf")))
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert json.loads(text)["loss"] is None
    assert json.loads(text)["gradient_norm"] is None
    assert "loss nan" in screen.getvalue()


def test_where_there_is_no_terminal_each_report_is_one_readable_line(tmp_path: Path):
    report, screen = opened(tmp_path)
    report.line(train(10))
    report.line(heldout(10))
    report.line(event(10))
    report.say("a [bold] sentence " + "x" * 200)
    report.close()
    shown = screen.getvalue().splitlines()
    assert shown[0] == (
        "update 10/20  loss 3.500 (mlm 3.500)  lr 0.0005  norm 1.250  1,234 tokens/s  "
        "epoch 0.250  data wait 1.5 %  0.75 GB  1 h 02 min left"
    )
    assert shown[1:3] == ["update 10  held-out loss 4.500  top-1 25.0 %  top-5 50.0 %", "checkpoint: saved"]
    assert shown[3] == "a [bold] sentence " + "x" * 200
    logged = (tmp_path / "log.txt").read_text().splitlines()
    assert [line[21:] for line in logged] == shown
    assert all(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S") for line in logged)


def test_a_terminal_gets_one_live_bar_and_the_log_still_every_line(tmp_path: Path):
    report, screen = opened(tmp_path, terminal=True)
    for update in (1, 2, 3):
        report.line(train(update))
    report.line(heldout(3))
    report.close()
    shown = screen.getvalue()
    assert "3/20" in shown
    assert "1,234 tokens/s" in shown
    assert "1 h 02 min left" in shown
    assert "lr 0.0005" not in shown
    assert "held-out loss 4.500" in shown
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 4


def test_trim_drops_what_lies_behind_the_checkpoint(tmp_path: Path):
    report, _ = opened(tmp_path)
    lines = [train(1), train(2), heldout(2), event(2), train(3), event(4, "skipped_update")]
    for line in lines:
        report.line(line)
    report.close()
    assert trim(tmp_path / "metrics.jsonl", 2) == 2
    assert read(tmp_path / "metrics.jsonl") == lines[:4]
    assert trim(tmp_path / "metrics.jsonl", 2) == 0
    assert trim(tmp_path / "absent.jsonl", 2) == 0
    assert not list(tmp_path.glob(".*writing"))


def test_lines_after_a_trim_are_in_the_trimmed_file(tmp_path: Path):
    report, _ = opened(tmp_path)
    report.line(train(1))
    report.line(train(2))
    trim(tmp_path / "metrics.jsonl", 1)  # while the reporters have the file open
    report.line(event(1, "resumed"))
    report.line(train(2))
    report.close()
    assert read(tmp_path / "metrics.jsonl") == [train(1), event(1, "resumed"), train(2)]


@pytest.mark.parametrize("kept_bytes", [1, 20, -1])
def test_a_last_line_torn_by_a_kill_is_left_out_and_never_grown_into(tmp_path: Path, kept_bytes: int):
    metrics = tmp_path / "metrics.jsonl"
    whole, torn = json.dumps(train(1)) + "\n", json.dumps(train(2))[:kept_bytes]
    metrics.write_text(whole + torn)
    assert read(metrics) == [train(1)]
    report, _ = opened(tmp_path)
    report.line(train(2))
    report.close()
    assert read(metrics) == [train(1), train(2)]
    metrics.write_text(whole + torn)
    trim(metrics, 5)
    assert metrics.read_text() == whole


def test_a_full_disk_is_said_once_and_its_lines_come_when_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    report, screen = opened(tmp_path)
    report.line(train(1))
    real = os.write

    def nothing(descriptor: int, data: bytes) -> int:
        if data[:1] == b"{":
            return real(descriptor, data[:40])  # a disk takes what still fits, then nothing more
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", nothing)
    report.line(train(2))
    report.line(train(3))
    monkeypatch.setattr(os, "write", real)
    assert read(tmp_path / "metrics.jsonl") == [train(1)]
    assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"\n")
    report.line(train(4))
    report.close()
    assert read(tmp_path / "metrics.jsonl") == [train(n) for n in (1, 2, 3, 4)]
    said = [line for line in screen.getvalue().splitlines() if "metrics.jsonl: expected to append" in line]
    assert len(said) == 1
    assert "no space left" in said[0].lower()


def test_reports_without_wandb_never_import_it(tmp_path: Path):
    code = (
        "import sys, pathlib\nfrom launcher.config.run_config import ReportSettings\nfrom launcher.reporting.reporters import Reporters\n"
        f"r = Reporters(ReportSettings(), pathlib.Path({str(tmp_path)!r}), name='n', config={{}}, run_id='x')\n"
        "r.line({'kind': 'train', 'update': 1, 'loss': 1.0}); r.close(); assert 'wandb' not in sys.modules, 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_an_offline_run_holds_every_number_once_under_its_update(tmp_path: Path):
    report, _ = opened(tmp_path, OFFLINE)
    for line in (event(0, "started", "now"), train(1), train(2), heldout(2), train(3, loss=float("nan")), event(3, "loss_spike", "high")):
        report.line(line)
    report.close(exit_code=3)
    (file,) = wandb_files(tmp_path)
    records = inspected(file)
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [row["_step"] for row in rows] == [1, 2, 3]
    assert [row["update"] for row in rows] == [1, 2, 3]
    assert [row["tokens"] for row in rows] == [100, 200, 300]
    assert rows[0]["train/loss"] == 5.75
    assert rows[0]["train/loss/mlm"] == 3.5
    assert rows[1]["heldout/loss"] == 4.5
    assert rows[1]["heldout/top5"] == 0.5
    assert "train/loss" not in rows[2]
    assert not any("updates" in name.split("/") or "tokens_total" in name for row in rows for name in row)
    assert not any("event" in name for row in rows for name in row)
    (alert,) = [record["request"]["alert"] if "request" in record else record["alert"] for record in records if "alert" in str(record)]
    assert (alert["title"], alert["text"], alert["level"]) == ("loss spike", "update 3: high", "WARN")
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert (run["run_id"], run["project"], run["display_name"]) == ("abcd1234", "lab", "run")
    axes = {record["metric"]["glob_name"]: record["metric"]["step_metric"] for record in records if "glob_name" in record.get("metric", {})}
    assert axes == {"train/*": "update", "heldout/*": "update", "checkpoint/*": "update"}
    assert next(record["exit"]["exit_code"] for record in records if record["type"] == "exit") == 3
    assert summary(file)["event/started"] == "update 0: now"


@pytest.mark.slow
def test_a_run_that_goes_on_from_a_checkpoint_continues_its_curve_and_repeats_nothing(tmp_path: Path):
    report, _ = opened(tmp_path, OFFLINE)
    for update in range(1, 6):
        report.line(train(update))
    report.close()
    assert trim(tmp_path / "metrics.jsonl", 3) == 2  # the checkpoint was made after update 3
    time.sleep(1.1)  # W&B names an offline folder by the second
    report, _ = opened(tmp_path, OFFLINE)
    for line in (train(4), train(5), heldout(5), train(6), train(7)):
        report.line(line)
    report.close()
    first, second = (
        [record["history"]["item"] for record in inspected(file) if record["type"] == "history"] for file in wandb_files(tmp_path)
    )
    trained = [row["update"] for row in first + second if "train/loss" in row]
    assert trained == [1, 2, 3, 4, 5, 6, 7]
    assert [row["update"] for row in second if "heldout/loss" in row] == [5]
    assert {file.stem for file in wandb_files(tmp_path)} == {"run-abcd1234"}
    assert [line["update"] for line in read(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5, 5, 6, 7]


@pytest.mark.slow
def test_rows_that_a_kill_took_from_an_offline_run_are_in_the_files_after_the_next_start(tmp_path: Path):
    """W&B writes a row when the next one comes, so kill -9 takes some."""
    code = (
        "import os, signal, sys, pathlib\nfrom launcher.config.run_config import ReportSettings\n"
        "from launcher.reporting.reporters import Reporters\n"
        f"r = Reporters(ReportSettings(wandb='offline'), pathlib.Path({str(tmp_path)!r}), name='n', config={{}}, run_id='abcd1234')\n"
        f"for line in {[train(n) for n in range(1, 11)]}: r.line(line)\n"
        "import psutil\n"
        "[child.kill() for child in psutil.Process().children(recursive=True)]\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # that of this process
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == -9
    time.sleep(1.1)  # W&B names an offline folder by the second
    report, screen = opened(tmp_path, OFFLINE)
    for update in range(11, 15):
        report.line(train(update))
    report.close()
    rows = [
        record["history"]["item"]["update"] for file in wandb_files(tmp_path) for record in inspected(file) if record["type"] == "history"
    ]
    assert sorted(rows) == list(range(1, 15)), "each row is in one of the files, once"
    assert "W&B" not in screen.getvalue()


def test_rows_that_are_in_no_offline_file_are_said_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wandb, "rows_held", lambda *_: {("train", 1), ("heldout", 5)})
    report, screen = opened(tmp_path, OFFLINE)
    for update in (1, 2, 3, 5):
        report.line(train(update))
    report.close()
    said = [line for line in screen.getvalue().splitlines() if line.startswith("W&B")]
    assert said == [
        "W&B: expected the offline files to hold every line, got none for updates 2 to 3, 5",
        f"W&B: expected it to take every line, got the above; `stillhouse wandb-replay {tmp_path}` sends all of it later, as one clean run",
    ]


@pytest.mark.slow
def test_a_replay_has_the_time_of_each_line_and_lines_without_one_are_taken(tmp_path: Path):
    report, _ = opened(tmp_path)
    for line in (train(1, time=1_700_000_000.5), train(2, time=1_700_000_060.25), train(3)):
        report.line(line)
    report.close()
    replay(tmp_path, OFFLINE, name="run", config={}, run_id="ffff0000")
    rows = [record["history"]["item"] for record in inspected(wandb_files(tmp_path)[0]) if record["type"] == "history"]
    assert [row["_timestamp"] for row in rows[:2]] == [1_700_000_000.5, 1_700_000_060.25]
    assert abs(rows[2]["_timestamp"] - time.time()) < 600, "an old file: W&B takes the time of the replay"
    assert not any("time" in name.split("/") for row in rows for name in row)


def test_a_run_folder_that_was_moved_gets_its_own_advice(tmp_path: Path):
    (tmp_path / "run").mkdir()
    report, screen = opened(tmp_path / "run")
    report.line(train(1))
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    report.line(train(2))
    report.close()
    said = [line for line in screen.getvalue().splitlines() if "metrics.jsonl: expected to append" in line]
    assert len(said) == 1
    assert said[0].endswith("the run goes on, the run folder was moved or removed: move it back, or lines and checkpoints are lost")


@pytest.mark.slow
def test_a_replay_is_one_clean_run_with_every_line_of_the_metrics(tmp_path: Path):
    report, _ = opened(tmp_path)
    for line in (event(0, "started"), train(1), train(2), heldout(2), train(3)):
        report.line(line)
    report.close()
    other = tmp_path / "replayed"
    other.mkdir()
    assert replay(tmp_path, OFFLINE, name="run", config={}, run_id="ffff0000", into=other) == "ffff0000"
    (file,) = wandb_files(other)
    rows = [record["history"]["item"] for record in inspected(file) if record["type"] == "history"]
    assert [row["update"] for row in rows] == [1, 2, 3]
    assert rows[1]["heldout/loss"] == 4.5
    assert file.stem == "run-ffff0000"
    time.sleep(1.1)  # W&B names an offline folder by the second
    replay(tmp_path, OFFLINE, name="run", config={}, run_id="ffff0000", into=other)
    again = [record["history"]["item"] for record in inspected(wandb_files(other)[-1]) if record["type"] == "history"]
    assert [row["update"] for row in again] == [1, 2, 3]


def test_a_replay_without_metrics_or_mode_says_what_is_missing(tmp_path: Path):
    with pytest.raises(LaunchError, match=r"metrics\.jsonl: expected the reports of a run, got none"):
        replay(tmp_path, OFFLINE, name="run", config={}, run_id="x")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(LaunchError, match=r"report\.wandb: expected online or offline"):
        replay(tmp_path, ReportSettings(), name="run", config={}, run_id="x")


@pytest.mark.slow
def test_online_without_a_key_is_said_once_and_recorded_offline(tmp_path: Path):
    code = (
        "from pathlib import Path\nfrom launcher.config.run_config import ReportSettings\n"
        "from launcher.reporting import reporters as r, wandb\nwandb.INIT_SECONDS = 2.0\n"
        f"made = r.Reporters(ReportSettings(wandb='online'), Path({str(tmp_path)!r}), name='n', config={{}}, run_id='abcd1234')\n"
        f"for line in {[train(1), train(2)]}: made.line(line)\n"
        "made.close()\n"
    )
    # in a process of its own: W&B keeps the first address of a server that a process gave it
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert sum("recording offline" in line for line in done.stdout.splitlines()) == 1, done.stdout
    assert done.stderr == ""
    assert done.stdout.count("loss") == 2
    (file,) = [file for file in wandb_files(tmp_path) if file.parent.name.startswith("offline-run")]
    assert [record["history"]["item"]["update"] for record in inspected(file) if record["type"] == "history"] == [1, 2]
    assert read(tmp_path / "metrics.jsonl") == [train(1), train(2)]


def test_wandb_failing_in_the_middle_is_said_once_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Broken:
        def catch_up(self, lines: object) -> None:
            pass

        def log(self, values: object) -> None:
            raise RuntimeError("pipe\nbroken")

        def finish(self, exit_code: int) -> None:
            raise RuntimeError("pipe\nbroken")

    monkeypatch.setattr(wandb, "WandB", lambda *_, **__: Broken())
    report, screen = opened(tmp_path, OFFLINE)
    for update in (1, 2, 3):
        report.line(train(update))
    report.close()
    assert [line for line in screen.getvalue().splitlines() if "W&B" in line] == [
        "W&B: pipe broken; the run goes on, metrics.jsonl has every number"
    ]
    assert len(read(tmp_path / "metrics.jsonl")) == 3


def wandb_files(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("*run-*/*.wandb"), key=lambda file: file.parent.name)


def summary(file: Path) -> dict[str, object]:
    merged: dict[str, object] = {}
    for record in inspected(file):
        if record["type"] == "summary":
            merged |= record["summary"].get("update", {})
    return merged


def test_the_first_update_of_a_start_is_a_line_at_once_and_no_line_of_metrics(tmp_path: Path):
    report, screen = opened(tmp_path)
    report.moved(41, 100, 2.5, first=True)
    report.moved(42, 100, 2.4, first=False)
    report.close()
    assert screen.getvalue() == "update 41/100  loss 2.500\n"
    assert (tmp_path / "log.txt").read_text().endswith("  update 41/100  loss 2.500\n")
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_terminals_bar_is_there_before_the_first_update_and_moves_with_every_one(tmp_path: Path):
    report, screen = opened(tmp_path, terminal=True)
    report.moved(0, 100, None, first=False)
    assert "0/100  waiting for an update" in screen.getvalue()
    report.moved(1, 100, 2.5, first=True)
    assert "1/100  loss 2.500" in screen.getvalue()
    report.line(train(2) | {"updates": 100, "tokens_per_second": 900.0})
    report.moved(3, 100, 2.0, first=False)
    assert "3/100  loss 2.000  900 tokens/s" in screen.getvalue()
    report.close()


@pytest.mark.slow
def test_a_student_is_an_artifact_with_its_files_on_request_and_none_where_it_is_not_wanted(tmp_path: Path):
    for mode in ("upload", "none"):
        folder = tmp_path / mode
        (folder / "student").mkdir(parents=True)
        (folder / "student" / "model.safetensors").write_bytes(b"weights")
        report, screen = opened(folder, OFFLINE.model_copy(update={"artifact": mode}))
        report.line(train(1))
        report.student(folder / "student", {"name": "run", "teacher": "https://me:secret@host/model"})
        report.close()
        artifacts = [record["artifact"] for record in inspected(wandb_files(folder)[0]) if record["type"] == "artifact"]
        assert "W&B" not in screen.getvalue()
        if mode == "none":
            assert artifacts == []
            continue
        (entry,) = artifacts[0]["manifest"]["contents"]
        assert (entry["path"], entry["local_path"]) == ("model.safetensors", str(folder / "student" / "model.safetensors"))
        assert json.loads(artifacts[0]["metadata"]) == {"name": "run", "teacher": "https://***@host/model"}


@pytest.mark.slow
def test_a_replay_has_the_masked_sentences_the_student_and_its_origin(tmp_path: Path):
    report, _ = opened(tmp_path)
    report.line(train(4))
    rows = [{"text": "a [MASK]", "label": "b", "prediction": "c", "student": [["c", 0.5]], "teacher": [], "update": 4}]
    report.samples(4, rows)
    report.close()
    assert [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()] == rows
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "config.json").write_text("{}")
    (tmp_path / "config.yaml").write_text(dump_config(load_run("tiny", [f"run.folder={tmp_path}"])))
    facts = {"commit": "c0ffee", "packages": {"stillhouse": "1.2"}, "data": {"fingerprint": "f" * 64}}
    (tmp_path / "environment.json").write_text(json.dumps(facts))
    replay_command(argparse.Namespace(folder=str(tmp_path), mode="offline", project="lab", entity=None))
    records = inspected(wandb_files(tmp_path)[0])
    (row,) = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert (row["samples._type"], row["samples.nrows"], row["train/loss"]) == ("table-file", 1, 5.0)
    (artifact,) = [one["artifact"] for one in records if one["type"] == "artifact" and one["artifact"]["type"] == "model"]
    assert [entry["ref"] for entry in artifact["manifest"]["contents"]] == [(tmp_path / "student" / "config.json").as_uri()]
    (origin,) = [record["run"]["config"]["update"]["origin"] for record in records if record["type"] == "run"]
    assert origin == {"code": {"commit": "c0ffee", "version": "1.2"}, "contents": {"data.shards": "f" * 12}, "parents": {}}
