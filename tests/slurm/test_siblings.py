"""The scripts beside distil_pretrain.sh on a real Slurm, with what they really start: a small corpus, a small teacher, small runs."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from run_lines import train_lines
from school import make_school
from stand_in import ROOT

from data_shards.storage.manifest import Manifest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
SCRIPTS = ROOT / "slurm"


def logs(folder: Path) -> str:
    return "\n".join(f"{log.name}: {log.read_text()}" for log in sorted(folder.glob("*.out")))


def test_shards_then_train_then_evaluate_as_one_chain_and_a_sweep_over_them(slurm: Any, tmp_path: Path):
    """all.sh starts build_shards.sh (an array and its seal), distil_pretrain.sh and evaluate.sh; sweep.sh then waits for them."""
    (tmp_path / "school").mkdir()
    school = make_school(tmp_path / "school")
    config = ["--config", str(ROOT / "configs" / "tiny.yaml"), f"teacher.model={school.teacher}", "train.updates=4"]
    environment = {
        "STILLHOUSE_PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
        "STILLHOUSE_OFFLINE": "1",
    }
    build = ["--parts", "2", "--out", "shards", "--tokenizer", str(school.teacher), "--heldout", "0.1", "--shard-tokens", "5000"]
    build += ["--processes", "1", str(tmp_path / "school" / "texts.jsonl")]
    score = ["--teacher", str(school.teacher), "--window-tokens", "32", "--windows", "16", "--json", "scores.json"]
    words = [*build, "--", *config, "run.folder=run", "--", *score]
    told = slurm.run(str(SCRIPTS / "all.sh"), *words, cwd=tmp_path, SBATCH_FLAGS="--nodes=2 --ntasks-per-node=1", **environment).split()
    numbers = {told[place + 1]: told[place] for place in range(len(told) - 1) if told[place].isdecimal()}
    (tmp_path / "list.txt").write_text("# one run\noptimizer.learning_rate=0.002\n")
    flags = {"SBATCH_FLAGS": f"--nodes=1 --ntasks=1 --dependency=afterok:{numbers['(train)']}"}
    swept = [str(SCRIPTS / "sweep.sh"), "list.txt", *config, "data.shards=shards", "run.folder=swept"]
    sweep = slurm.submit(*swept, cwd=tmp_path, **flags, **environment)
    for name in ("(shards)", "(train)", "(evaluate)"):
        assert slurm.wait(numbers[name], timeout_seconds=200)["JobState"] == "COMPLETED", f"{name}: {logs(tmp_path)}"

    manifest = Manifest.load(tmp_path / "shards")
    assert sum(entry.documents for entries in manifest.splits.values() for entry in entries) == 600, "every document of both parts"
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["updates"], report["ranks"]) == (4, 2)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert [score["model"] for score in scores] == [str(school.teacher), "run/student"]
    end = time.monotonic() + 200
    while slurm.run("squeue", "-h", "-j", sweep):
        assert time.monotonic() < end, logs(tmp_path)
        time.sleep(0.3)
    swept_end, trained_end = train_lines(tmp_path / "swept" / "1")[-1], train_lines(tmp_path / "run")[-1]
    assert (swept_end["update"], trained_end["update"]) == (4, 4), logs(tmp_path)
    assert swept_end["learning_rate"] == 2 * trained_end["learning_rate"], "the line's own words"
