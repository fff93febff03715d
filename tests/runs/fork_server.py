"""Ranks in a tenth of a second: a process that has imported everything once and is forked for each rank.

Run as a script, it answers requests on its standard input, a JSON line each: {"argv", "env", "log", "cwd"} is answered with the number
of the process it has started, {"poll": pid} with its exit code or null. What runs in the fork is launcher/run.py's own main.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class ForkServer:
    """The process, and the way to ask it."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_SILENT": "true", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True, env=environment)
        self._ask({"poll": 0})  # until it has imported everything

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, argv: list[str], env: dict[str, str], log: Path, cwd: Path, verb: str | None = None) -> "Forked":
        """launcher/run.py with these arguments, or another verb of `stillhouse`."""
        return Forked(self, self._ask({"argv": argv, "env": env, "log": str(log), "cwd": str(cwd), "verb": verb}))

    def poll(self, pid: int) -> int | None:
        return self._ask({"poll": pid})

    def close(self) -> None:
        self._process.communicate()


class Forked:
    """One rank, with the verbs of subprocess.Popen that the tests use."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
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
                raise subprocess.TimeoutExpired("launcher/run.py", timeout or 0)
            time.sleep(0.02)
        return code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, 9)


def serve() -> None:
    """Answer until the input ends."""
    from launcher import cli, run  # noqa: PLC0415
    from launcher.corpus import teacher_cache  # noqa: F401, PLC0415
    from launcher.process import preflight  # noqa: F401, PLC0415
    from launcher.training import session  # noqa: F401, PLC0415

    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG) if request["poll"] else (0, 0)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif (answer := os.fork()) == 0:
            log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(request["cwd"])
            os.environ.update(request["env"])
            verb = request["verb"]
            sys.argv = ["stillhouse", verb, *request["argv"]] if verb else ["launcher/run.py", *request["argv"]]
            (cli.main if verb else run.main)()  # leaves by SystemExit, as the scripts do
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    serve()
