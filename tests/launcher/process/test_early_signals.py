"""A signal at any moment of a start is one line and the same exit status as ever, for real processes of every door."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from launcher.process import early_signals

ROOT = Path(__file__).resolve().parents[3]
DOORS = {"script": ["launcher/run.py"], "verb": ["-m", "launcher.cli", "train"]}


@pytest.fixture
def default_signals():
    """The signals of a foreground process: those of a test may be ignored, or caught by an earlier test."""
    names = early_signals.NAMES
    before = {name: signal.signal(getattr(signal, name), signal.SIG_DFL) for name in names}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


def start(door: str, words: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | (environment or {})
    command = [sys.executable, *DOORS[door], "--config", "tiny", *words]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=os.environ | own)


@pytest.mark.slow
@pytest.mark.usefixtures("no_rank", "default_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("door", DOORS)
def test_a_signal_during_the_imports_is_one_line(corpus, tmp_path: Path, door: str, number: signal.Signals):
    words = [f"run.folder={tmp_path / 'run'}", f"data.shards={corpus.shards}", f"teacher.model={corpus.model}"]
    for wait_for_output in (False, True):  # as soon as the process catches it; when torch is being imported
        with start(door, words) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            if wait_for_output:
                assert process.stdout.readline().startswith("loading torch")
                time.sleep(0.1)
            else:
                wait_until_it_catches(process.pid)
            process.send_signal(number)
            code, errors = process.wait(30), process.stderr.read()
        assert errors == f"stillhouse: {number.name} while starting: stopped, nothing is lost\n"
        assert code == (130 if number == signal.SIGINT else -number)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_rank", "default_signals")
@pytest.mark.parametrize(("rank", "number"), [("0", signal.SIGINT), ("0", signal.SIGTERM), ("1", signal.SIGTERM)])
def test_a_signal_while_the_ranks_meet_ends_the_rank_at_once(corpus, tmp_path: Path, rank: str, number: signal.Signals):
    words = [f"run.folder={tmp_path / 'run'}", f"data.shards={corpus.shards}", f"teacher.model={corpus.model}", "train.timeout_seconds=60"]
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if rank == "1":
            listening.listen()  # answers nothing: the rank waits for rank 0
        port = str(listening.getsockname()[1])
        if rank == "0":
            listening.close()
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        with start("script", words, environment) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                wait_until_it_meets(process.pid, port)
                process.send_signal(number)
                code, errors = process.wait(10), process.stderr.read()
            finally:
                process.kill()
    assert code == 128 + number
    assert errors == (f"stillhouse: {number.name} while the ranks meet: stopped, nothing is lost\n" if rank == "0" else "")


def wait_until_it_catches(pid: int) -> None:
    """Until the process has a handler for SIGXCPU, the last that early_signals.catch sets. Python has none of its own."""
    end = time.monotonic() + 60
    caught = 0
    while not caught >> (signal.SIGXCPU - 1) & 1:
        assert time.monotonic() < end
        (mask,) = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        caught = int(mask, 16)
        time.sleep(0.001)


def wait_until_it_meets(pid: int, port: str) -> None:
    """Until the process has a socket to or on the port."""
    end = time.monotonic() + 60
    hexadecimal = f":{int(port):04X}"
    while time.monotonic() < end:
        sockets = set()
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                sockets.add(os.readlink(path))
        lines = [line for table in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]]
        for line in lines:
            fields = line.split()
            if f"socket:[{fields[9]}]" in sockets and hexadecimal in fields[1] + " " + fields[2] + " ":
                time.sleep(0.3)
                return
        time.sleep(0.05)
    pytest.fail("expected the rank to come to the meeting")


@pytest.mark.usefixtures("default_signals")
def test_a_signal_that_is_ignored_stays_ignored_and_release_gives_the_others_back():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    early_signals.catch()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
    early_signals.release()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("default_signals")
def test_ctrl_c_inside_a_finaliser_is_not_lost():
    """Python prints what `__del__` raises and goes on, as with the thousand patterns that transformers compiles at its import."""

    class Left:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    early_signals.catch()
    early_signals.release()
    left = [Left()]

    def finalise() -> None:
        left.clear()
        time.sleep(20)

    with pytest.raises(KeyboardInterrupt):
        finalise()


@pytest.mark.usefixtures("default_signals")
def test_only_rank_zero_prints_the_line():
    code = "import os\nfrom launcher.process import early_signals\nearly_signals.catch()\nos.kill(os.getpid(), 15)\n"
    for rank, lines in (("0", 1), ("1", 0)):
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=os.environ | {"RANK": rank}, check=False
        )
        assert (ended.returncode, ended.stderr.count("\n")) == (-15, lines)
