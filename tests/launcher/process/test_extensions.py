"""Compiling once, and locks of processes that are gone; the real compiler where a test is slow, a quick stand-in elsewhere."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.errors import LaunchError
from launcher.process import extensions
from launcher.process.extensions import OP, READY, extensions_folder, prepare_extensions, private_folder

ROOT = Path(__file__).parents[3]
STAND_IN = f"""
import os, pathlib
folder = pathlib.Path(os.environ["TORCH_EXTENSIONS_DIR"]) / "{OP}"
folder.mkdir(parents=True)
(folder / "op.so").write_text("")
print("library:", folder / "op.so")
"""


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The private folder, empty; DeepSpeed on the CPU."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    return extensions_folder()


@pytest.fixture
def said() -> list[str]:
    return []


def planted_lock(folder: Path) -> Path:
    """What a process that was killed while compiling leaves."""
    lock = folder / OP / "lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("")
    (lock.parent / "shm.o").write_text("half")
    return lock


def test_the_private_folder_is_for_these_versions_this_processor_and_this_host(private: Path):
    name = private.name
    assert private.parent.parts[-2:] == ("stillhouse", "torch_extensions")
    assert name.startswith("torch2.13")
    assert f"-py{sys.version_info[0]}{sys.version_info[1]}-deepspeed0.19" in name
    assert extensions_folder() == private


def test_a_folder_that_the_user_chose_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "mine"))
    assert extensions_folder() == tmp_path / "mine"


def test_the_op_is_built_once_and_the_second_start_is_instant(private: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extensions, "BUILD", STAND_IN)
    prepare_extensions(said.append)
    assert said == ["compiling DeepSpeed's communication op, once, about half a minute"]
    assert os.environ["TORCH_EXTENSIONS_DIR"] == str(private)
    monkeypatch.setattr(extensions, "BUILD", "raise SystemExit('built again')")
    prepare_extensions(said.append)
    assert len(said) == 1


def test_an_op_whose_library_is_gone_is_built_again(private: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extensions, "BUILD", STAND_IN)
    prepare_extensions(said.append)
    shutil.rmtree(private / OP)
    prepare_extensions(said.append)
    assert len(said) == 2
    assert (private / OP / "op.so").exists()


def test_a_stale_lock_in_the_private_folder_is_removed_with_what_it_guarded(
    private: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(extensions, "BUILD", STAND_IN)
    lock = planted_lock(private)
    prepare_extensions(said.append)
    assert said[0] == f"{lock}: removed a lock that a killed process left"
    assert sorted(file.name for file in (private / OP).iterdir()) == ["op.so"]
    assert (private / READY).exists()


def test_a_stale_lock_beside_a_finished_op_costs_no_second_build(private: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extensions, "BUILD", STAND_IN)
    prepare_extensions(said.append)
    lock = private / OP / "lock"
    lock.write_text("")
    prepare_extensions(said.append)
    assert said[1:] == [f"{lock}: removed a lock that a killed process left"]
    assert not lock.exists()


def test_a_stale_lock_in_the_users_folder_is_named_and_kept(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "mine"))
    monkeypatch.setattr(extensions, "ELSEWHERE_SECONDS", 0.5)
    lock = planted_lock(tmp_path / "mine")
    with pytest.raises(LaunchError) as caught:
        prepare_extensions(said.append)
    assert str(caught.value).startswith(f"{lock}: expected no lock, got one that a killed process left")
    assert f"rm {lock}" in str(caught.value)
    assert lock.exists()
    assert said == []


def test_a_lock_in_the_users_folder_that_another_host_may_hold_is_waited_for(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(extensions, "BUILD", STAND_IN.replace("parents=True", "exist_ok=True"))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "mine"))
    lock = planted_lock(tmp_path / "mine")
    with subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(2.5); os.remove({str(lock)!r})"]):
        prepare_extensions(said.append)
    assert said[0] == f"waiting for whoever holds {lock}, perhaps on another host and compiling DeepSpeed's communication op"
    assert (tmp_path / "mine" / READY).exists()


def test_what_another_environment_built_is_built_again(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extensions, "BUILD", STAND_IN.replace("parents=True", "parents=True, exist_ok=True"))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "mine"))
    prepare_extensions(said.append)
    before = private_folder()
    monkeypatch.setattr(sys, "prefix", "/another/environment")
    prepare_extensions(said.append)
    prepare_extensions(said.append)
    assert len(said) == 2
    assert private_folder() != before


def test_a_lock_that_a_living_process_holds_is_waited_for(private: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extensions, "BUILD", STAND_IN.replace("parents=True", "exist_ok=True"))
    lock = planted_lock(private)
    code = f"import os, time; f = os.open({str(lock)!r}, os.O_RDONLY); print('held', flush=True); time.sleep(3); os.remove({str(lock)!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        prepare_extensions(said.append)
        assert holder.wait() == 0
    assert said[0] == f"waiting for process {holder.pid}, which is compiling DeepSpeed's communication op"
    assert not any("removed" in line for line in said)


def test_a_missing_compiler_is_named(private: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(LaunchError, match=r"no-such-compiler: expected a C\+\+ compiler .+, got none; install g\+\+, or set CXX"):
        prepare_extensions(said.append)
    assert said == []


def test_a_failed_build_gives_the_compilers_first_error_and_leaves_no_lock(private: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):
    broken = STAND_IN + "(folder / 'lock').write_text('')\nraise SystemExit('shm.cpp:1:1: error: no such thing\\nninja: stopped')"
    monkeypatch.setattr(extensions, "BUILD", broken)
    with pytest.raises(LaunchError, match=r"expected to compile DeepSpeed's op, got shm.cpp:1:1: error: no such thing; see that"):
        prepare_extensions(said.append)
    assert not (private / OP).exists()
    assert not (private / READY).exists()


def test_nothing_is_compiled_on_a_gpu(private: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    prepare_extensions(said.append)
    assert said == []
    assert not private.exists()


def test_ninja_is_found_beside_python_in_an_environment_that_was_not_activated(
    private: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(extensions, "BUILD", STAND_IN)
    beside = tmp_path / "bin"
    beside.mkdir()
    (beside / "ninja").write_text("#!/bin/sh\n")
    (beside / "ninja").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    (beside / "python").symlink_to(os.path.realpath("/proc/self/exe"))
    compiler = shutil.which("c++") or pytest.skip("no compiler here")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "c++").symlink_to(compiler)
    monkeypatch.setenv("PATH", str(tmp_path / "tools"))
    prepare_extensions(said.append)
    assert os.environ["PATH"] == f"{beside}:{tmp_path / 'tools'}"


@pytest.mark.slow
def test_a_start_after_a_kill_in_the_middle_of_compiling_works(private: Path, said: list[str]):
    starter = "from launcher.process.extensions import prepare_extensions; prepare_extensions(lambda text: print(text, flush=True))"
    first = subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    lock = private / OP / "lock"
    ends = time.monotonic() + 120
    while not lock.exists():
        assert time.monotonic() < ends, "expected torch's lock to appear"
        time.sleep(0.02)
    time.sleep(0.5)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert lock.exists()
    prepare_extensions(said.append)
    assert said[0] == f"{lock}: removed a lock that a killed process left"
    assert said[1] == "compiling DeepSpeed's communication op, once, about half a minute"
    code = "from kd import distributed; distributed.start(); distributed.stop(); print('works')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert "works" in done.stdout
    assert not lock.exists()
