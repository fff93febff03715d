"""A hub that cannot be reached is one line within two seconds."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launcher.errors import LaunchError
from launcher.process.model_hub import require_model

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A hub whose port nobody listens on, and an empty cache; the folder of the cache."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        for name in ("HF_HUB_OFFLINE", "HF_HOME", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        yield tmp_path / "cache"


def test_a_build_without_a_hub_is_one_line_before_any_library_is_loaded(no_hub, tmp_path):
    (tmp_path / "a.txt").write_text("a\n")
    words = ["shards", "build", "--tokenizer", "bert-base-uncased", "--out", str(tmp_path / "out"), str(tmp_path / "a.txt")]
    began = time.process_time(), os.times().children_user + os.times().children_system
    command = [sys.executable, "-m", "launcher.cli", *words]
    process = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60)
    seconds = os.times().children_user + os.times().children_system - began[1]
    assert process.returncode == 2
    assert process.stderr == (
        "stillhouse: --tokenizer: expected a folder, or a name in the hub's cache, got bert-base-uncased, which is neither "
        "(127.0.0.1: Connection refused); name a folder, check the network, or run `hf download bert-base-uncased` where the hub answers\n"
    )
    assert seconds < 1, "CPU seconds, so that a busy machine does not count; transformers alone takes two"


def test_a_name_in_the_cache_is_read_from_there_at_once(no_hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    (no_hub / "models--owner--name" / "snapshots").mkdir(parents=True)
    require_model("--tokenizer", "owner/name")
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_offline_by_choice_has_its_own_advice(no_hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LaunchError, match=r"neither \(HF_HUB_OFFLINE is set\); name a folder, unset it, or run `hf download name`"):
        require_model("--tokenizer", "name")


def test_a_hub_that_answers_is_left_to_the_libraries(no_hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        require_model("--tokenizer", "name")
    assert "HF_HUB_OFFLINE" not in os.environ


def test_a_name_that_is_never_found_does_not_wait_for_the_resolver(no_hub, monkeypatch):
    ended = threading.Event()

    def waits(*_: object) -> None:
        ended.wait(30)
        raise OSError("the test has ended")

    monkeypatch.setattr(socket, "create_connection", waits)
    began = time.monotonic()
    with pytest.raises(LaunchError, match="no answer"):
        require_model("--tokenizer", "name")
    assert time.monotonic() - began < 5
    ended.set()


def test_a_folder_needs_no_hub(no_hub, tmp_path):
    require_model("--tokenizer", str(tmp_path))
    require_model("--tokenizer", "./absent")  # the build's own line names the path
