"""A real Slurm on this machine (cluster_up.sh), and the login node's commands for it."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "slurm"
TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "unshare", "nsenter", "ip")
INSTALL = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge iproute2"
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}


class Cluster:
    """The login node: runs Slurm's client commands and waits for jobs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._hastened: set[tuple[str, str]] = set()

    def run(self, *command: str, cwd: Path | None = None, **environment: str) -> str:
        """What the command printed; its failure is an AssertionError with both its streams."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        env = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        done = subprocess.run(
            command, cwd=cwd, env=env | environment | {"PATH": path}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *command: str, cwd: Path, **environment: str) -> str:
        """The job's number."""
        return self.run(*command, cwd=cwd, **environment).split()[-1]

    def job(self, number: str) -> dict[str, str]:
        """Slurm's facts about the job by name, such as JobState, ExitCode and Restarts."""
        words = self.run("scontrol", "show", "job", "-o", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: str, states: set[str] = ENDED, timeout_seconds: float = 120) -> dict[str, str]:
        """The job's facts once it is in one of these states. A requeued job is started again soon, see hasten."""
        end = time.monotonic() + timeout_seconds
        while (facts := self.job(number))["JobState"] not in states:
            assert time.monotonic() < end, f"job {number}: expected one of {states} in {timeout_seconds} s, got {facts}"
            self.hasten(number, facts)
            time.sleep(0.2)
        return facts

    def wait_for_restart(self, number: str, restarts: int, timeout_seconds: float = 120) -> None:
        """Until the job runs after so many restarts."""
        end = time.monotonic() + timeout_seconds
        while ((facts := self.job(number))["Restarts"], facts["JobState"]) != (str(restarts), "RUNNING"):
            assert time.monotonic() < end, f"job {number}: expected restart {restarts} in {timeout_seconds} s, got {facts}"
            self.hasten(number, facts)
            time.sleep(0.2)

    def hasten(self, number: str, facts: dict[str, str]) -> None:
        """Start a requeued job in two seconds instead of after cred_expire.

        Nodes refuse a job within the second in which its last start ended.
        """
        if (facts["JobState"], facts["Reason"]) != ("PENDING", "BeginTime") or (number, facts["Restarts"]) in self._hastened:
            return
        self.run("scontrol", "update", f"JobId={number}", "StartTime=now+2")
        self._hastened.add((number, facts["Restarts"]))


def what_it_lacks() -> str:
    """What this machine lacks for a cluster, as the end of a sentence; empty where nothing is missing."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return "root, for the hosts' namespaces" if os.geteuid() else f"{', '.join(missing)}: {INSTALL}" if missing else ""


@contextmanager
def running(**shape: str) -> Iterator[Cluster]:
    """A cluster, up while inside. shape: NODES, PREFIX, CPUS, GPUS, CRED_SECONDS as cluster_up.sh takes them."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a short path: it holds sockets
    try:
        # A file and no pipe for its output: the daemons that stay would keep a pipe open.
        with (folder / "up.log").open("w+") as log:
            up = subprocess.run(
                [SCRIPTS / "cluster_up.sh", folder],
                env=os.environ | shape,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                timeout=120,
                check=False,
            )
            log.seek(0)
            assert up.returncode == 0, log.read()
        yield Cluster(folder)
    finally:
        subprocess.run([SCRIPTS / "cluster_down.sh", folder], timeout=60, check=True)
        shutil.rmtree(folder)
