"""What is wrong with a machine is one line that says what to do."""

import os
import socket
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from launcher.errors import LaunchError
from launcher.process import preflight
from launcher.process.preflight import PACKAGES, check_packages, check_port, check_writable, fits

ROOT = Path(__file__).parents[3]


def test_the_table_of_packages_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [f"{name}{wanted}" for name, wanted in PACKAGES.items()] == project["dependencies"]
    assert project["requires-python"] == f">={'.'.join(map(str, preflight.PYTHON))}"


def test_the_packages_that_are_installed_here_pass():
    check_packages()


def test_an_encoding_that_torch_cannot_live_with_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("locale.getpreferredencoding", lambda do_setlocale: "ANSI_X3.4-1968")
    with pytest.raises(LaunchError, match=r"locale: expected text files in UTF-8, got ascii; .* set PYTHONUTF8=1"):
        check_packages()


def test_the_locale_c_in_which_python_takes_utf8_by_itself_is_no_mistake():
    command = [sys.executable, "-c", "from launcher.process.preflight import check_packages; check_packages()"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LC_", "LANG"))}
    subprocess.run(command, cwd=ROOT, env=environment | {"LC_ALL": "C"}, check=True)


@pytest.mark.parametrize(
    ("version", "wanted", "answer"),
    [
        ("2.13.0+cpu", ">=2.13,<2.14", True),
        ("2.13.5rc1", ">=2.13,<2.14", True),
        ("2.12.9", ">=2.13,<2.14", False),
        ("2.14.0", ">=2.13,<2.14", False),
        ("0.19.10", ">=0.19.8,<0.20", True),
        ("0.19.7", ">=0.19.8,<0.20", False),
        ("6", ">=6", True),
        ("6.0.0", ">=6", True),
        ("10.0", ">=9", True),
        ("2026.9.0", ">=2026.9", True),
        (None, ">=1", False),
    ],
)
def test_a_version_is_compared_by_its_numbers(version: str | None, wanted: str, answer: bool):
    assert fits(version, wanted) is answer


def test_every_wrong_package_is_named_with_one_command_for_all(monkeypatch: pytest.MonkeyPatch):
    real = metadata.version

    def version(name: str) -> str:
        if name == "webdataset":
            raise metadata.PackageNotFoundError(name)
        return "0.18.2" if name == "deepspeed" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(LaunchError) as caught:
        check_packages()
    assert str(caught.value) == (
        "deepspeed: expected >=0.19.8,<0.20, got 0.18.2\n"
        f"webdataset: expected >=1.0.2,<2, got none; {sys.executable} -m pip install 'deepspeed>=0.19.8,<0.20' 'webdataset>=1.0.2,<2'"
    )


def test_an_old_python_is_named_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preflight, "PYTHON", (9, 9))
    with pytest.raises(LaunchError, match=r"python: expected 9\.9 or later, got 3\."):
        check_packages()


def test_preflight_loads_without_any_package():
    code = "import sys; sys.path.insert(0, '.'); import launcher.process.preflight"
    subprocess.run([sys.executable, "-S", "-I", "-c", code], cwd=ROOT, check=True)


def test_a_folder_that_can_be_written_passes_and_nothing_is_left_or_made(tmp_path: Path):
    check_writable(tmp_path / "runs" / "one")
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError, match=r"file/run: expected a folder that can be written, got .+; choose another"):
        check_writable(tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(LaunchError, match="permission denied"):
        check_writable(tmp_path / "run")


def test_a_free_port_passes_twice():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    check_port("127.0.0.1", port)
    check_port("localhost", port)


def test_a_taken_port_says_by_whom_and_how_to_choose_another():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError) as caught:
            check_port("127.0.0.1", port)
    assert str(caught.value).startswith(f"127.0.0.1:{port}: expected a free port for the ranks to meet at, got one taken by ")
    assert f"(pid {os.getpid()})" in str(caught.value)
    assert "--master_port N" in str(caught.value)


def test_a_port_of_another_machine_is_not_ours_to_judge():
    check_port("192.0.2.1", 29500)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_out_of_range_is_refused(port: int):
    with pytest.raises(LaunchError, match="expected a port from 1 to 65535"):
        check_port("127.0.0.1", port)


def test_a_host_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(LaunchError, match=r"MASTER_ADDR: expected a host that can be found, got node-x \(name or service not known\)"):
        check_port("node-x", 29500)
