"""torchrun as docs/cluster.md starts it: when one rank is killed, all ranks start again and the run goes on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from run_lines import lines, train_lines

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "train.updates=40",
    "train.global_batch=8",
    "checkpoint.every_updates=10",
    "report.every_updates=1",
    "evaluate.every_updates=null",
)


def test_all_ranks_start_again_when_one_was_killed_and_the_losses_are_those_of_one_rank(start, school, tmp_path):
    """TORCH_DISABLE_SHARE_RDZV_TCP_STORE makes torchrun count its restarts where all hosts see them."""
    alone = start(tmp_path / "alone", *SETTINGS)
    assert alone.wait() == [0], alone.output
    folder, output = tmp_path / "run", tmp_path / "torchrun.log"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    torchrun += ["--rdzv-endpoint=127.0.0.1:0", "--max-restarts=1", str(ROOT / "launcher" / "run.py"), "--config", "tiny", *SETTINGS]
    torchrun += [f"run.folder={folder}", f"data.shards={school.shards}", f"teacher.model={school.teacher}", "teacher.mode=tensor_parallel"]
    own = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONPATH": str(ROOT), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with output.open("w") as file:
        process = subprocess.Popen(torchrun, cwd=tmp_path, env=os.environ | own, stdout=file, stderr=file)
    try:
        kill_one_rank(process, folder, output)
        assert process.wait(240) == 0, output.read_text()
    finally:
        process.kill()
        process.wait()
    expected, found = ([line["loss"] for line in train_lines(path)] for path in (tmp_path / "alone", folder))
    assert [line["update"] for line in train_lines(folder)] == list(range(1, 41))
    assert found[:6] == pytest.approx(expected[:6], rel=1e-5)
    assert found == pytest.approx(expected, rel=1e-3)  # rounding grows with every update
    report = json.loads((folder / "report.json").read_text())
    assert (report["ranks"], report["updates"]) == (2, 40)
    assert (folder / "student" / "model.safetensors").exists()
    (resumed,) = [line for line in lines(folder, "event") if line["event"] == "resumed"]
    assert resumed["update"] in (10, 20, 30)


def kill_one_rank(agent: subprocess.Popen[bytes], folder: Path, output: Path) -> None:
    """Rank 1 of torchrun's two, after 15 updates."""
    end = time.monotonic() + 120
    while len(train_lines(folder)) < 15:
        assert time.monotonic() < end, output.read_text()
        assert agent.poll() is None, output.read_text()
        time.sleep(0.005)
    (victim,) = [rank for rank in psutil.Process(agent.pid).children() if rank.environ().get("RANK") == "1"]
    victim.kill()
