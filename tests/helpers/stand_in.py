"""A trainer that writes down what it was given, and the ways to start it and to wait for it."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "slurm" / "distil_pretrain.sh"
STAND_IN = '''
"""A trainer that writes down what it was given; told to, it leaves with a code or waits for USR2."""
import json, os, signal, socket, sys, time
from pathlib import Path

words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
start = int(os.environ.get("SLURM_RESTART_COUNT", 0))
names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "WRAPPED"]
facts = {name: os.environ.get(name) for name in names} | {"argv": sys.argv[1:], "host": socket.gethostname()}
if words.get("until") == "signal" and start == 0 and words.get("deaf") != facts["RANK"]:
    def save(*_):
        time.sleep(1)
        sys.exit(75)
    signal.signal(signal.SIGUSR2, save)
    signal.signal(signal.SIGTERM, save)
place = Path(f"rank-{facts['RANK']}-{start}{os.environ.get('SLURM_ARRAY_TASK_ID', '')}.json")
place.with_suffix(".part").write_text(json.dumps(facts))
place.with_suffix(".part").rename(place)
if words.get("until") in ("signal", "cancel") and start == 0 or words.get("fails") not in (None, facts["RANK"]):
    time.sleep(60)
if words.get("orphaned") == facts["RANK"]: # what watches over this host's ranks is killed: the shell's parent
    os.kill(int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
if "says" in words:
    print(f"stillhouse: rank {facts['RANK']}: {words['says']}", file=sys.stderr)
sys.exit(int(words.get("code", 0)))
'''


def submit(slurm: Any, folder: Path, *words: str, flags: Sequence[str] = (), **environment: str) -> str:
    """Two hosts, two ranks each; the job's number."""
    own = {"STILLHOUSE_ROOT": str(folder), "STILLHOUSE_PYTHON": sys.executable} | environment
    return slurm.submit(
        "sbatch",
        "--nodelist=node1,node2",
        "--nodes=2",
        "--ntasks-per-node=2",
        *flags,
        str(SCRIPT),
        "--config",
        "x.yaml",
        *words,
        cwd=folder,
        **own,
    )


def facts_of(folder: Path, start: int = 0, count: int = 4) -> list[dict[str, Any]]:
    """What each rank was given."""
    return [json.loads((folder / f"rank-{rank}-{start}.json").read_text()) for rank in range(count)]


def wait_for_ranks(folder: Path, timeout_seconds: float = 120) -> None:
    end = time.monotonic() + timeout_seconds
    while len(list(folder.glob("rank-*-0.json"))) < 4:
        assert time.monotonic() < end, "\n".join(log.read_text() for log in folder.glob("*.out"))
        time.sleep(0.1)
