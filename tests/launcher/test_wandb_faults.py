"""W&B's server hangs, breaks or rejects the key, or its disk is full: a run loses nothing, and a replay makes it good."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from launcher.reporters import read

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
RUN = """
import sys, time
from pathlib import Path
from launcher import reporters
reporters.INIT_SECONDS = reporters.FINISH_SECONDS = 3.0
folder = Path(sys.argv[1])
began = time.monotonic()
made = reporters.Reporters(reporters.ReportSettings(wandb="online"), folder, name="n", config={}, run_id="abcd1234")
opened = time.monotonic() - began
waits = []
for update in range(1, 21):
    began = time.monotonic()
    made.line({"kind": "train", "update": update, "updates": 20, "tokens": update, "loss": 1.0 / update})
    waits.append(time.monotonic() - began)
began = time.monotonic()
made.close()
print("seconds", opened, max(waits), time.monotonic() - began)
"""
FULL = """
import sys
from pathlib import Path
from launcher import reporters
folder = Path(sys.argv[1])
made = reporters.Reporters(reporters.ReportSettings(wandb="offline"), folder, name="n", config={}, run_id="abcd1234")
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
from launcher import reporters
folder = Path(sys.argv[1])
reporters.replay(folder, reporters.ReportSettings(wandb="offline"), name="n", config={}, run_id="new00001", into=folder / "replay")
"""


class Server(BaseHTTPRequestHandler):
    """Answers every request in the way of `answer`."""

    answer: Callable[["Server"], None]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        with suppress(OSError):
            type(self).answer(self)

    do_POST = do_PUT = do_HEAD = do_GET


def with_code(code: int) -> Callable[[Server], None]:
    def answer(server: Server) -> None:
        body = json.dumps({"errors": [{"message": "user is not logged in"}]}).encode()
        server.send_response(code)
        server.send_header("Content-Type", "application/json")
        server.send_header("Content-Length", str(len(body)))
        server.end_headers()
        server.wfile.write(body)

    return answer


def hang(server: Server) -> None:
    time.sleep(60)


FAULTS = {"hangs": hang, "rejects the key": with_code(401), "breaks": with_code(500)}


@pytest.fixture
def addresses() -> Iterator[dict[str, str]]:
    """One loopback server a fault."""
    servers = {}
    for name, answer in FAULTS.items():
        handler = type("Handler", (Server,), {"answer": staticmethod(answer)})
        servers[name] = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers[name].daemon_threads, servers[name].block_on_close = True, False
        threading.Thread(target=servers[name].serve_forever, args=(0.02,), daemon=True).start()
    yield {name: f"http://127.0.0.1:{server.server_address[1]}" for name, server in servers.items()}
    for server in servers.values():
        server.shutdown()
        server.server_close()


def python(code: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    own = {"HOME": str(folder), "NETRC": str(folder / "netrc"), "PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.Popen(command, cwd=folder, env=clean | own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def updates_of(file: Path) -> list[int]:
    """The updates in a W&B file, as W&B's own reader gives them."""
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)], capture_output=True, text=True, check=True
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return [record["history"]["item"]["update"] for record in records if record["type"] == "history"]


def test_a_run_loses_nothing_whatever_the_server_does(addresses, tmp_path):
    """All at once, because they mostly wait. A server that refuses: test_reporters.py."""
    runs = {}
    for name, address in addresses.items():
        (tmp_path / name).mkdir()
        runs[name] = python(RUN, tmp_path / name, WANDB_BASE_URL=address, WANDB_API_KEY="0" * 40)
    for name, process in runs.items():
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, f"{name}: {err}"
        assert [line["update"] for line in read(tmp_path / name / "metrics.jsonl")] == list(range(1, 21))
        assert sum("recording offline, `wandb sync` sends it later" in line for line in out.splitlines()) == 1, f"{name}: {out}"
        assert "0" * 40 not in out + err
        opened, longest, closed = map(float, out.split("seconds ")[-1].split())
        print(f"{name}: start {opened:.1f} s, slowest line {longest:.3f} s, end {closed:.1f} s")
        files = [path for path in (tmp_path / name / "wandb").glob("*run-*/*.wandb") if path.parent.name.startswith("offline-run")]
        assert [updates_of(file) for file in files] == [list(range(1, 21))]


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
        replayed = python(REPLAY, disk)
        _, err = replayed.communicate(timeout=200)
        assert replayed.returncode == 0, err
        (clean,) = (disk / "replay" / "wandb").glob("*run-*/*.wandb")
        assert updates_of(clean) == list(range(1, 61))
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
