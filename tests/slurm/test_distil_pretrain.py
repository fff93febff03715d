"""slurm/distil_pretrain.sh on a real Slurm, with a stand-in for the trainer: ranks, exit codes, requeueing, the cluster file."""

import sys
from pathlib import Path
from typing import Any

import pytest
from stand_in import ROOT, SCRIPT, facts_of, submit, wait_for_ranks

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def test_each_task_is_a_rank_and_gets_every_argument(slurm: Any, stand_in: Path):
    number = submit(slurm, stand_in, "run.name=two words", "a=[1, 2]")
    assert slurm.wait(number)["JobState"] == "COMPLETED"
    ranks = facts_of(stand_in)
    assert [(rank["RANK"], rank["LOCAL_RANK"], rank["host"]) for rank in ranks] == [
        ("0", "0", "node1"),
        ("1", "1", "node1"),
        ("2", "0", "node2"),
        ("3", "1", "node2"),
    ]
    assert {(rank["WORLD_SIZE"], rank["MASTER_ADDR"], rank["MASTER_PORT"]) for rank in ranks} == {
        ("4", "198.51.100.11", str(20000 + int(number)))
    }
    assert {tuple(rank["argv"]) for rank in ranks} == {("--config", "x.yaml", "run.name=two words", "a=[1, 2]")}


@pytest.mark.parametrize("words", [("code=7",), ("code=7", "fails=2")], ids=["all ranks", "one rank"])
def test_the_exit_code_is_the_trainers_own(slurm: Any, stand_in: Path, words: tuple[str, ...]):
    facts = slurm.wait(submit(slurm, stand_in, *words))
    assert (facts["JobState"], facts["ExitCode"]) == ("FAILED", "7:0")


def test_a_users_scancel_is_never_undone(slurm: Any, stand_in: Path):
    number = submit(slurm, stand_in, "until=cancel")
    wait_for_ranks(stand_in)
    slurm.run("scancel", number)
    facts = slurm.wait(number)
    assert (facts["JobState"], facts["Restarts"]) == ("CANCELLED", "0")


def test_the_cluster_file_gives_flags_and_a_prefix_and_the_environment_overrides_it(slurm: Any, stand_in: Path):
    cluster = stand_in / "cluster.sh"
    flags = 'SBATCH_FLAGS="--nodes=2 --ntasks-per-node=2 --job-name=ours --time=5 ${SBATCH_FLAGS:-}"'
    cluster.write_text(f"{flags}\nSTEP_PREFIX=${{STEP_PREFIX:-env WRAPPED=yes}}\n")
    own = {"STILLHOUSE_CLUSTER": str(cluster), "STILLHOUSE_ROOT": str(stand_in), "STILLHOUSE_PYTHON": sys.executable}
    (stand_in / "slurm").symlink_to(ROOT / "slurm")
    number = slurm.submit(str(SCRIPT), "--config", "x.yaml", cwd=stand_in, SBATCH_FLAGS="--time=9", **own)
    facts = slurm.wait(number)
    assert (facts["JobState"], facts["JobName"], facts["NumNodes"], facts["TimeLimit"]) == ("COMPLETED", "ours", "2", "00:09:00")
    assert {rank["WRAPPED"] for rank in facts_of(stand_in)} == {"yes"}
