"""Ranks in a tenth of a second: a process that has imported everything once and is forked for each rank.

Run as a script, it answers requests on its standard input, a JSON line each: {"argv", "env", "log", "cwd", "limits", "constants"} is
answered with the number of the process it has started, {"poll": pid} with its exit code or null. argv[0] names what runs in the fork:
`launcher/run.py`, `stillhouse`, `-m` with a module in argv[1], or the path of any other script.
"""

import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parents[2]
HELPERS = Path(__file__).resolve().parent
ROOMS = ("stillhouse", "data_shards", "kd", "launcher")
FOR_GPUS = ("kd.kernels.triton_terms",)
"""Modules that import packages which a machine without a GPU may lack."""
LATE = (
    *("sklearn.metrics", "scipy.stats", "matplotlib.backends.backend_agg"),
    *("transformers.models.auto.tokenization_auto", "transformers.models.bert.modeling_bert"),
    *("transformers.models.distilbert.modeling_distilbert", "deepspeed.module_inject.auto_ep_layer"),
    "deepspeed.comm.mori",
)
"""Modules that Stillhouse's packages import at their first use, in most runs."""


class ForkServer:
    """The process, and the way to ask it."""

    def __init__(self) -> None:
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(HELPERS)])}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True, env=os.environ | own)
        self._ask({"poll": 0})  # until it has imported everything

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        cwd: Path,
        limits: Mapping[str, int] = MappingProxyType({}),
        constants: Mapping[str, object] = MappingProxyType({}),
    ) -> "Forked":
        """A process with exactly this environment; both its streams are appended to the log.

        limits: soft limits by the names of `resource`, such as RLIMIT_FSIZE. constants: other values for constants of modules, by their
        full names, so that a test need not wait for as long as a user would.
        """
        request = {"argv": list(argv), "env": dict(env), "log": str(log), "cwd": str(cwd)}
        return Forked(self, self._ask(request | {"limits": dict(limits), "constants": dict(constants)}), list(argv))

    def popen(self, command: Sequence[str], stdout: Any, stderr: Any, env: Mapping[str, str]) -> "Forked":
        """In the place of subprocess.Popen, for this Python with a script or a module, and both streams to one file."""
        assert command[0] == sys.executable
        assert stdout is stderr
        return self.start(command[1:], env, Path(stdout.name).absolute(), Path.cwd())

    def fork_jobs(self, patch: "pytest.MonkeyPatch") -> None:
        """Until the patch ends, the runs that this process starts are forked, and their ends are noticed at once."""
        patch.setattr("launcher.process.start_ranks.subprocess", SimpleNamespace(Popen=self.popen))
        patch.setattr("launcher.comparison.jobs.POLL_SECONDS", 0.02)

    def poll(self, pid: int) -> int | None:
        return self._ask({"poll": pid})

    def close(self) -> None:
        self._process.communicate()


class Forked:
    """One process, with the verbs of subprocess.Popen that the tests use."""

    def __init__(self, server: ForkServer, pid: int, argv: list[str]) -> None:
        self.pid = pid
        self.args = argv
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.poll(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout or 1e9)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def serve() -> None:
    """Answer until the input ends."""
    from launcher import cli, run  # noqa: PLC0415

    import_early()
    importlib.import_module("launcher.planning.devices.gemm").SIDE["cpu"] = 256  # each run times products of 1,024 for a tenth of a second
    doors = {"launcher/run.py": run.main, str(ROOT / "launcher" / "run.py"): run.main, "stillhouse": cli.main}
    gc.collect()
    gc.freeze()  # what was imported is nobody's garbage: forks need not look through it
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG) if request["poll"] else (0, 0)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif (answer := os.fork()) == 0:
            become(request, doors)
        print(json.dumps(answer), flush=True)


def import_early() -> None:
    """Import what runs import late: every module of a run, and the packages that they ask for."""
    for room in ROOMS:
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            if module.name not in FOR_GPUS:
                importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    assert "torch._inductor.compile_fx" not in sys.modules  # tests of ranks ask whether a run imports it
    mapping = importlib.import_module("transformers.conversion_mapping")
    mapping.get_checkpoint_conversion_mapping("bert")  # compiles a thousand regular expressions, and keeps them


def become(request: dict[str, Any], doors: dict[str, Any]) -> None:
    """The process that was asked for, from here to its end, which is that of launcher/run.py as a script."""
    code = 1
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(request["cwd"])
        for number in (signal.SIGHUP, signal.SIGINT):  # ignored where the tests run under nohup, or in the background of a script
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = request["argv"]
        for name, value in request["limits"].items():
            resource.setrlimit(getattr(resource, name), (value, resource.RLIM_INFINITY))
        for name, value in request["constants"].items():
            module, _, constant = name.rpartition(".")
            assert hasattr(importlib.import_module(module), constant), name
            setattr(importlib.import_module(module), constant, value)
        if sys.argv[0] in doors:
            doors[sys.argv[0]]()
        elif sys.argv[0] == "-m":
            del sys.argv[0]
            sys.modules.pop(sys.argv[0], None)
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    serve()
