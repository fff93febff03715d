"""W&B's server hangs, breaks, rejects the key or goes away, at the start or in the middle, or its disk is full: a run loses nothing.

The server is a stand-in (wandb_server.py), the client the real one.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from wandb_server import KEY, WandbServer, python, updates_of

from launcher.run_folder.metrics_file import read, trim

pytestmark = [pytest.mark.slow, pytest.mark.faults]
RUN = """
import sys, time
from pathlib import Path
from launcher.config.run_config import ReportSettings
from launcher.reporting import reporters, wandb
folder, first, pause, last, wandb.INIT_SECONDS, wandb.FINISH_SECONDS = Path(sys.argv[1]), *map(int, sys.argv[2:])
began = time.monotonic()
made = reporters.Reporters(ReportSettings(wandb="online"), folder, name="n", config={}, run_id="abcd1234")
opened = time.monotonic() - began
waits = []
for update in range(first, last + 1):
    began = time.monotonic()
    made.line({"kind": "train", "update": update, "updates": last, "tokens": update, "loss": 1.0 / update})
    if update % 5 == 0:
        made.line({"kind": "heldout", "update": update, "tokens": update, "heldout_loss": 1.0 / update})
    waits.append(time.monotonic() - began)
    if update == pause:
        print("half", flush=True)
        sys.stdin.readline()
began = time.monotonic()
made.close()
print("seconds", opened, max(waits), time.monotonic() - began)
"""
FULL = """
import sys
from pathlib import Path
from launcher.config.run_config import ReportSettings
from launcher.reporting import reporters
folder = Path(sys.argv[1])
made = reporters.Reporters(ReportSettings(wandb="offline"), folder, name="n", config={}, run_id="abcd1234")
for update in range(1, 61):
    made.line({"kind": "train", "update": update, "updates": 60, "tokens": update, "loss": 1.0 / update})
    if update == 5:
        with open(folder / "ballast", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
    if update == 55:
        (folder / "ballast").unlink()
made.close()
"""
REPLAY = """
import sys
from pathlib import Path
from launcher.reporting import wandb_replay as replay
from launcher.config.run_config import ReportSettings
from launcher.reporting import reporters
folder, mode = Path(sys.argv[1]), sys.argv[2]
replay.replay(folder, ReportSettings(wandb=mode), name="n", config={}, run_id="new00001", into=folder / "replay")
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts children whose W&B sends often and asks again soon; none is left. login: seconds for the server's first answer."""
    with ExitStack() as stack:

        def begin(code: str, folder: Path, *arguments: object, server: WandbServer, login: int = 60) -> subprocess.Popen[str]:
            folder.mkdir(exist_ok=True)
            hurry = {
                f"WANDB__FILE_STREAM_{name}": "1" for name in ("TRANSMIT_INTERVAL", "RETRY_WAIT_MIN_SECONDS", "RETRY_WAIT_MAX_SECONDS")
            }
            hurry |= {"WANDB__FILE_STREAM_TIMEOUT_SECONDS": "2", "WANDB_HTTP_TIMEOUT": str(login)}
            child = python(code, folder, *arguments, WANDB_BASE_URL=server.address, WANDB_API_KEY=KEY, **hurry)
            stack.callback(lambda: (child.kill(), child.communicate()))
            return child

        yield begin


def ended(name: str, child: subprocess.Popen[str], folder: Path, updates: range, clauses: tuple[str, ...]) -> None:
    """A run ended well, with every number, and said these things about W&B and nothing else; the key is in none of its files."""
    out, err = child.communicate(timeout=200)
    assert child.returncode == 0, f"{name}: {err}"
    assert [line["update"] for line in read(folder / "metrics.jsonl") if line["kind"] == "train"] == list(updates)
    said = [line for line in out.splitlines() if line.startswith("W&B: ") and "/runs/" not in line]
    assert len(said) == len(clauses), f"{name}: {out}"
    assert "wandb sync" not in out
    assert all(any(clause in line for line in said) for clause in clauses), f"{name}: {out}"
    assert err == "", f"{name}: {err}"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "netrc"]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    opened, longest, closed = map(float, out.split("seconds ")[-1].split())
    print(f"{name}: start {opened:.1f} s, slowest line {longest:.3f} s, end {closed:.1f} s")


LATER = "`stillhouse wandb-replay {}` sends all of it later, as one clean run"
AT_THE_START = ("away", "hangs", "401", "500")
FOR_GOOD = {"hangs": ("Timed out", "Fatal error"), "401": ("Fatal error",), "429": ("Timed out", "Fatal error")}
FOR_A_WHILE = ("away", "takes and drops")
KILLED = "500"
ID, PATIENT = "abcd1234", 60


def test_a_run_loses_nothing_whatever_the_server_does(start, tmp_path):
    """All at once, because they mostly wait."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(WandbServer(name)) for name in AT_THE_START}
        runs = {name: start(RUN, tmp_path / name, 1, 0, 20, 3, 3, server=server, login=3) for name, server in servers.items()}
        for name, child in runs.items():
            ended(name, child, tmp_path / name, range(1, 21), (f"recording offline, {LATER.format(tmp_path / name)}",))
            files = list((tmp_path / name / "wandb").glob("offline-run-*/*.wandb"))
            assert [updates_of(file) for file in files] == [list(range(1, 21))]


def test_a_server_that_fails_in_the_middle_is_said_and_what_it_lacks_is_sent_later(start, tmp_path):
    """Runs that began well; their server fails for good, or comes back, or the run is killed while it fails. Then healthy servers again."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(WandbServer()) for name in (*FOR_GOOD, *FOR_A_WHILE, KILLED)}
        folders = {name: tmp_path / name.replace(" ", "-") for name in servers}
        runs = {
            name: start(RUN, folders[name], 1, 12, 40, PATIENT, 3 if name in FOR_GOOD else PATIENT, server=servers[name])
            for name in servers
        }
        for name, child in runs.items():
            while child.stdout.readline() != "half\n":
                assert child.poll() is None, child.stderr.read()
            while not servers[name].updates(ID):
                time.sleep(0.05)
            servers[name].switch(name)
        runs[KILLED].kill()
        runs.pop(KILLED).wait()
        for child in runs.values():
            child.stdin.write("\n")
            child.stdin.flush()
        time.sleep(1.2)  # W&B sends once a second here, and asks again after one
        for name in (*FOR_A_WHILE, KILLED):
            servers[name].switch("well")
        assert trim(folders[KILLED] / "metrics.jsonl", 7) > 0
        again = start(RUN, folders[KILLED], 8, 0, 40, PATIENT, PATIENT, server=servers[KILLED])
        for name, child in runs.items():
            ended(name, child, folders[name], range(1, 41), (*FOR_GOOD[name], LATER.format(folders[name])) if name in FOR_GOOD else ())
            (file,) = (folders[name] / "wandb").glob("run-*/*.wandb")
            assert updates_of(file) == list(range(1, 41))
        assert all(0 < len(servers[name].updates(ID)) < 40 for name in FOR_GOOD)
        for name in FOR_GOOD:
            servers[name].switch("well")
        more = start(RUN, folders["429"], 41, 0, 45, PATIENT, PATIENT, server=servers["429"])
        replay = start(REPLAY, folders["401"], "online", server=servers["401"])
        ended("killed and started again", again, folders[KILLED], range(1, 41), ())
        ended("gone on", more, folders["429"], range(1, 46), ())
        assert replay.wait(timeout=100) == 0
    for name, run, last in ((KILLED, ID, 40), ("429", ID, 45), ("401", "new00001", 40), *((name, ID, 40) for name in FOR_A_WHILE)):
        assert servers[name].updates(run) == list(range(1, last + 1)), name
        assert servers[name].updates(run, "heldout/loss") == list(range(5, last + 1, 5)), name
        assert servers[name].odd == []


def test_a_process_of_wandb_that_hangs_or_dies_holds_nothing_up(start, tmp_path):
    hasty = RUN.replace("began =", "reporters.HANGING_SECONDS = 1.0\nbegan =", 1)
    said = {
        signal.SIGSTOP: ("expected its process to end, got no answer from it; it is given up",),
        signal.SIGKILL: ("; the run goes on", "expected it to take every line, got the above", ""),
    }
    with WandbServer() as server:
        runs = {number: start(hasty, tmp_path / number.name, 1, 5, 300, PATIENT, 1, server=server) for number in said}
        for number, child in runs.items():
            while child.stdout.readline() != "half\n":
                assert child.poll() is None, child.stderr.read()
            for process in psutil.Process(child.pid).children():
                process.send_signal(number)
            child.stdin.write("\n")
            child.stdin.flush()
        for number, child in runs.items():
            ended(number.name, child, tmp_path / number.name, range(1, 301), said[number])


def test_an_address_with_a_secret_in_it_is_not_used(start, tmp_path):
    """W&B writes its server's address into its logs."""
    with WandbServer() as server:
        server.path = "/?token=tOken77ab12cd34ef"
        child = start(RUN, tmp_path / "run", 1, 0, 5, PATIENT, PATIENT, server=server)
        said = "expected WANDB_BASE_URL without user, password and query, which W&B would write into its logs"
        ended("secret", child, tmp_path / "run", range(1, 6), (said,))
        assert server.asked == []
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"tOken77" in path.read_bytes()]


def test_a_server_that_takes_neither_tables_nor_artifacts_stops_nothing(start, tmp_path):
    """The stand-in knows neither, so its answers are not what W&B's client expects."""
    code = RUN.replace(
        "made.close()",
        """
(folder / "student").mkdir()
(folder / "student" / "model.safetensors").write_bytes(b"weights")
made.samples(last, [{"text": "a [MASK]", "label": "b", "prediction": "c", "student": [["c", 0.5]], "teacher": []}])
made.student(folder / "student", {"name": "n"})
made.close()""",
    )
    with WandbServer() as server:
        child = start(code, tmp_path / "run", 1, 0, 5, PATIENT, PATIENT, server=server)
        ended("no artifacts", child, tmp_path / "run", range(1, 6), ("validation error for ArtifactType",))
        assert server.updates(ID) == [1, 2, 3, 4, 5]
        assert server.odd == []


def test_a_disk_that_is_full_for_w_and_b_stops_nothing_and_a_replay_has_every_line(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("a small disk: needs root and the right to mount")
    try:
        done = python(FULL, disk)
        out, err = done.communicate(timeout=200)
        assert done.returncode == 0, err
        assert sum("No space left on device" in line and "the run goes on" in line for line in out.splitlines()) >= 1
        assert [line["update"] for line in read(disk / "metrics.jsonl")] == list(range(1, 61)), "what did not fit waited"
        replayed = python(REPLAY, disk, "offline")
        _, err = replayed.communicate(timeout=200)
        assert replayed.returncode == 0, err
        (clean,) = (disk / "replay" / "wandb").glob("*run-*/*.wandb")
        assert updates_of(clean) == list(range(1, 61))
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
