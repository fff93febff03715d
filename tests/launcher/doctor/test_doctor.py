"""The doctor's every finding, on a machine that is made good or bad for it, and on run folders in every state."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from data_shards.stream.stream import Stream
from kd.checkpoint import checkpoint
from kd.checkpoint.on_disk import Progress
from launcher.commands.parser import parser
from launcher.config.load import dump_config
from launcher.doctor import disk, machine, run_health, services
from launcher.doctor.findings import Finding, bad, good, report, seen, warning
from launcher.errors import LaunchError
from launcher.process import rank_environment


def verdicts(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.subject: finding.verdict for finding in findings}


def the(findings: Iterator[Finding], subject: str) -> Finding:
    (found,) = [finding for finding in findings if finding.subject == subject]
    return found


def test_a_good_disk_keeps_every_promise_and_nothing_is_left_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disk, "SPEED_BYTES", 4 << 20)
    found = verdicts(disk.run_storage(tmp_path / "runs" / "deep"))
    assert found.pop(f"disk of {tmp_path / 'runs' / 'deep'}") in ("good", "warning")  # a tmpfs is worth a warning
    found.pop("disk speed")
    found.pop("fsync")
    assert found == {}
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_bad(tmp_path: Path):
    if os.geteuid() == 0:
        place = Path("/proc")
    else:
        place = tmp_path / "closed"
        place.mkdir(mode=0o500)
    (found,) = disk.run_storage(place)
    assert found.verdict == "bad"
    assert "cannot be written" in found.found


def test_missing_shards_are_named(corpus, tmp_path: Path):
    shutil.copytree(corpus.shards, tmp_path / "shards")
    assert the(disk.data_storage(str(tmp_path / "shards")), "data").verdict == "good"
    (tmp_path / "shards" / "train-000001.tar").unlink()
    found = the(disk.data_storage(str(tmp_path / "shards")), "data")
    assert found.verdict == "bad"
    assert "1 missing, train-000001.tar first" in found.found


def test_packages_of_other_versions_are_named(monkeypatch: pytest.MonkeyPatch):
    assert verdicts(machine.software()) == {"python": "good", "packages": "good"}
    monkeypatch.setattr(machine.preflight, "PACKAGES", {"numpy": ">=99", "no-such-package": ">=1", "rich": ">=1"})
    found = the(machine.software(), "packages")
    assert found.verdict == "bad"
    assert "no-such-package missing (>=1)" in found.found
    assert "rich" not in found.found


def test_ranks_that_cannot_meet_are_a_finding_with_the_reason(monkeypatch: pytest.MonkeyPatch):
    def fail() -> dict[str, Any]:
        raise RuntimeError("connection refused")

    monkeypatch.setattr(services.rank_bandwidth, "measure", fail)
    (found,) = seen("ranks", services.ranks)
    assert (found.verdict, found.found) == ("bad", "RuntimeError: connection refused")


@pytest.fixture
def server() -> Iterator[Callable[[int], str]]:
    """server(code): the address of a loopback server that answers so."""
    servers = []

    def start(code: int) -> str:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


def test_w_and_b_is_asked_and_its_key_is_shown_to_nobody(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for code, verdict in ((200, "good"), (404, "good"), (503, "warning")):
        monkeypatch.setenv("WANDB_BASE_URL", server(code))
        found = list(services.wandb())
        assert verdicts(iter(found)) == {"W&B": verdict, "W&B key": "warning"}
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "secret" * 7)
    found = list(services.wandb())
    assert verdicts(iter(found)) == {"W&B": "warning", "W&B key": "good"}
    assert "secret" not in repr(found)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert verdicts(services.wandb()) == {"W&B": "good"}


def test_the_hub_is_asked_unless_it_is_switched_off(server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert the(services.hub(), "model hub").verdict == "good"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for address, verdict in ((server(200), "good"), ("http://127.0.0.1:9", "warning")):
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert the(services.hub(), "model hub").verdict == verdict


def test_slurm_is_asked_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert the(services.slurm(), "Slurm").found == "not on this host"
    stand_in = tmp_path / "sinfo"
    stand_in.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "slurm 22.05" || echo "gpu* up 4 nodes idle"\n')
    stand_in.chmod(0o755)
    assert the(services.slurm(), "Slurm").found == "slurm 22.05; gpu* up 4 nodes idle"
    stand_in.write_text("#!/bin/sh\nexit 1\n")
    assert the(services.slurm(), "Slurm").verdict == "warning"


def test_a_taken_port_is_bad(monkeypatch: pytest.MonkeyPatch, server):
    address, port = server(200).removeprefix("http://").split(":")
    monkeypatch.setenv("MASTER_ADDR", address)
    monkeypatch.setenv("MASTER_PORT", port)
    assert the(services.names(), "ports").verdict == "bad"
    monkeypatch.delenv("MASTER_PORT")
    assert the(services.names(), "ports").verdict == "good"


def test_a_world_of_several_is_recognised_as_torchrun_or_srun_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert rank_environment.rank_variables() == {}
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$2" = node ] && echo "NodeName=$4 NodeAddr=198.51.100.3 State=IDLE" || printf "n3\\nn4\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_STEP_NODELIST": "n[3-4]", "SLURM_JOB_ID": "17"}
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    assert rank_environment.rank_variables() == {
        "RANK": "1",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "198.51.100.3",
        "MASTER_PORT": "20017",
    }


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "abc"), ("RANK", "")])
def test_nonsense_in_the_environment_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    for variable, sane in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "29000", name: value}.items():
        monkeypatch.setenv(variable, sane)
    with pytest.raises(LaunchError, match=f"{name}: expected a whole number in the environment, got '{value}'"):
        rank_environment.rank_variables()


def test_only_something_bad_makes_the_exit_code_1(capsys: pytest.CaptureFixture[str]):
    findings = [good("a", "fine"), warning("b", "[odd]", "mend it"), bad("c", "s3://key:secret@bucket gone", "bring it back")]
    assert report(findings[:2], as_json=True) == 0
    assert [finding["verdict"] for finding in json.loads(capsys.readouterr().out)] == ["good", "warning"]
    assert report(findings, as_json=False) == 1
    text = capsys.readouterr().out
    assert "[odd]" in text
    assert "-> bring it back" in text
    assert "secret" not in text


@pytest.fixture
def folder(make_config, corpus) -> Path:
    """A run folder as a run of 12 updates leaves it that was killed after update 9; checkpoints after 4 and 8."""
    config = make_config()
    place = Path(config.run.folder)
    (place / "checkpoints").mkdir(parents=True)
    (place / "config.yaml").write_text(dump_config(config))
    stream = Stream(config.data.shards, "train", config.data.stream, config.train.global_batch)
    lines = [{"kind": "event", "update": 0, "event": "started", "message": "12 updates"}]
    lines += [{"kind": "train", "update": update, "updates": 12, "loss": 9.0 - update} for update in range(1, 10)]
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for done in (4, 8):
        facts = {"cursor": stream.cursor(done * 8).as_dict()}
        checkpoint.write(place / "checkpoints", Progress(done, 0, 0, facts), [("w", torch.ones(9), {"exp_avg": torch.ones(9)})])
    return place


def add(folder: Path, **line: object) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_a_killed_run_is_told_where_it_goes_on(folder: Path):
    found = {finding.subject: finding for finding in run_health.health(folder)}
    assert found["state"].verdict == "bad"
    assert "died after update 9 without a word" in found["state"].found
    assert "it goes on after update 8" in found["state"].found
    assert f"stillhouse train --config {folder}/config.yaml" in found["state"].advice
    assert found["last good checkpoint"].found.startswith("update-00000008, ")
    assert found["data"].verdict == found["permissions"].verdict == found["configuration"].verdict == "good"
    assert found["progress"].found == "update 9 of 12, loss 0"


def test_damage_is_named_and_the_older_checkpoint_taken(folder: Path):
    newest = folder / "checkpoints" / "update-00000008" / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-4])
    found = {finding.subject: finding for finding in run_health.health(folder)}
    assert found["last good checkpoint"].found.startswith("update-00000004, ")
    assert str(newest) in found["damaged checkpoint"].found
    (folder / "checkpoints" / "update-00000004" / "state.json").unlink()
    assert the(run_health.health(folder), "last good checkpoint").verdict == "bad"


def test_a_run_whose_lines_cannot_be_read_is_not_called_one_that_never_started(folder: Path):
    (folder / "metrics.jsonl").write_text("garbage\n")
    found = {finding.subject: finding for finding in run_health.health(folder)}
    assert found["metrics"].verdict == "bad"
    assert "progress" not in found
    assert found["state"].found.startswith("without a readable line of an update; it goes on after update ")


@pytest.mark.parametrize(
    ("event", "reason", "message", "verdict", "words"),
    [
        (
            "stopped",
            "requested",
            "saved after update 9; worded otherwise",
            "warning",
            "stopped on request at update 9; it goes on after update 8",
        ),
        (
            "stopped",
            "not_finite",
            "10 updates in a row were not finite; start again to continue",
            "bad",
            "stopped at update 9: 10 updates in a row",
        ),
        ("export_failed", None, "student not written (disk full)", "bad", "student not written"),
    ],
)
def test_why_a_run_stopped_is_said(folder: Path, event: str, reason: str | None, message: str, verdict: str, words: str):
    add(folder, kind="event", update=9, event=event, reason=reason, message=message)
    found = the(run_health.health(folder), "state")
    assert found.verdict == verdict
    assert words in found.found


def test_a_finished_run_and_a_running_one_are_good(folder: Path, make_config):
    (folder / "report.json").write_text("{}")
    (folder / "student").mkdir()
    assert the(run_health.health(folder), "state").verdict == "good"
    shutil.rmtree(folder / "student")
    with run_health.RunFolder.open(make_config()):
        assert the(run_health.health(folder), "state").found.startswith("running (host ")
    assert the(run_health.health(folder), "state").found.startswith("died")


def test_troubles_of_the_past_are_counted(folder: Path):
    for update in (3, 5):
        add(folder, kind="event", update=update, event="skipped_update", message=f"update {update}: gradient not finite")
    found = the(run_health.health(folder), "skipped update")
    assert found.verdict == "warning"
    assert found.found.startswith("2 times, last at update 5: update 5: gradient not finite")


def test_another_corpus_a_broken_configuration_and_files_for_everyone_are_found(folder: Path, make_config, corpus):
    (folder / "config.yaml").write_text(dump_config(make_config("data.seed=7")))
    assert "the shards or the stream settings have changed" in the(run_health.health(folder), "data").found
    (folder / "metrics.jsonl").chmod(0o666)
    found = the(run_health.health(folder), "permissions")
    assert found.verdict == "warning"
    assert "metrics.jsonl first" in found.found
    (folder / "config.yaml").write_text("train: {")
    assert the(run_health.health(folder), "configuration").verdict == "bad"
    (folder / "config.yaml").unlink()
    with pytest.raises(LaunchError, match="expected a run folder with config"):
        list(run_health.health(folder))


def test_looking_changes_nothing(folder: Path):
    def facts() -> dict[str, tuple[int, int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size, stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*")}

    before = facts()
    list(run_health.health(folder))
    assert facts() == before


def test_the_command_answers_in_json_with_the_exit_code_of_the_worst(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run_health.run(parser().parse_args(["doctor", str(folder), "--json"])) == 1
    assert {finding["subject"]: finding["verdict"] for finding in json.loads(capsys.readouterr().out)}["state"] == "bad"


@pytest.mark.slow
def test_the_whole_look_at_this_machine_has_every_subject_and_its_processor_memory_and_ranks_are_good(tmp_path: Path):
    command = [sys.executable, "-m", "launcher.cli", "doctor", "--folder", str(tmp_path), "--json", "--clear-locks"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    )
    findings = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    found = {subject: finding["verdict"] for subject, finding in findings.items()}
    assert done.returncode == ("bad" in found.values()), done.stdout
    assert "--clear-locks: has no effect" in done.stderr, "a script's flag is not refused"
    wanted = {
        "python",
        "packages",
        "processor",
        "memory",
        "shared memory",
        "GPUs",
        "ranks",
        "host name",
        "ports",
    }
    assert found.keys() >= wanted | {"fsync", "disk speed", "Slurm", "W&B", "model hub"}
    for subject in ("processor", "threads", "memory", "shared memory", "GPUs", "ranks"):
        assert found[subject] != "bad", findings[subject]
    backend = "nccl" if torch.cuda.device_count() > 1 else "gloo"
    measured = re.fullmatch(rf"2 on this host by {backend}: ([\d,]+) MB/s, \d+\.\d\d ms for a small sum", findings["ranks"]["found"])
    assert measured, findings["ranks"]["found"]
    assert int(measured[1].replace(",", "")) >= 1
