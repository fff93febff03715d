"""What the scripts of slurm/ do on a real Slurm whose nodes differ, with a stand-in for the trainer: ranks, logs, requeueing, siblings."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from stand_in import ROOT, SCRIPT, facts_of, submit, wait_for_ranks

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
SCRIPTS = ROOT / "slurm"


def own(folder: Path) -> dict[str, str]:
    return {"STILLHOUSE_ROOT": str(folder), "STILLHOUSE_PYTHON": sys.executable}


def log_of(folder: Path, number: str) -> str:
    return (folder / f"stillhouse-{number}.out").read_text()


def test_without_a_number_of_tasks_there_is_a_rank_for_each_gpu_on_nodes_that_differ(slurm: Any, stand_in: Path):
    words = ["sbatch", "--nodelist=node2,node3", "--gpus=3", str(SCRIPT), "--config", "x.yaml"]
    number = slurm.submit(*words, cwd=stand_in, **own(stand_in))
    (stand_in / "plain").mkdir()
    another_jobs = {
        "SLURM_NTASKS": "5",
        "SLURM_ARRAY_JOB_ID": "77",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_RESTART_COUNT": "9",
        "SLURM_GPUS": "2",
    }
    words = ["sbatch", "--nodelist=node1", str(SCRIPT), "--config", "x.yaml"]
    plain = slurm.submit(*words, cwd=stand_in / "plain", **own(stand_in), **another_jobs)
    assert slurm.wait(number)["JobState"] == "COMPLETED", log_of(stand_in, number)
    ranks = facts_of(stand_in, count=3)
    assert [(rank["RANK"], rank["LOCAL_RANK"], rank["host"]) for rank in ranks] == [
        ("0", "0", "node2"),
        ("1", "1", "node2"),
        ("2", "0", "node3"),
    ]
    assert {(rank["WORLD_SIZE"], rank["MASTER_ADDR"]) for rank in ranks} == {("3", "198.51.100.12")}, (
        "an address, where the name would not do"
    )
    log = log_of(stand_in / "plain", plain) if slurm.wait(plain) else ""
    assert "SLURM_NTASKS=5 is another job's" in log
    assert f"job {plain}, start 1: 1 ranks on node1, " in log, "without GPUs one a node, whatever the shell of sbatch was"
    assert facts_of(stand_in / "plain", count=1)[0]["host"] == "node1"


def test_rank_zero_speaks_in_the_jobs_log_and_what_others_died_of_is_repeated_there(slurm: Any, stand_in: Path):
    number = submit(slurm, stand_in, "code=4", "fails=3", "says=expected memory, got none")
    facts = slurm.wait(number)
    log = log_of(stand_in, number)
    assert (facts["JobState"], facts["ExitCode"]) == ("FAILED", "4:0"), log
    assert "stillhouse: rank 3: expected memory, got none" in log
    assert "the trainer left with 4 (rank 3 on node2 was the first)" in log
    own_log = (stand_in / f"stillhouse-{number}" / "rank-3.log").read_text()
    assert own_log.splitlines()[0] == "start 1 on node2"
    assert sorted(path.name for path in (stand_in / f"stillhouse-{number}").glob("rank-*.log")) == [f"rank-{n}.log" for n in (1, 2, 3)]


def test_a_preempted_job_saves_is_requeued_and_goes_on_also_when_a_rank_does_not_listen_yet(slurm: Any, stand_in: Path):
    number = submit(slurm, stand_in, "until=signal", "deaf=0", flags=["--exclusive"])
    wait_for_ranks(stand_in)
    urgent = slurm.submit(
        "sbatch", "--partition=urgent", "--nodelist=node1,node2", "--exclusive", "--output=/dev/null", "--wrap=true", cwd=stand_in
    )
    assert slurm.wait(urgent)["JobState"] == "COMPLETED"
    facts = slurm.wait(number)
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1"), log_of(stand_in, number)
    assert [rank["RANK"] for rank in facts_of(stand_in, start=1)] == ["0", "1", "2", "3"]


def test_a_step_whose_daemon_was_killed_is_not_waited_for_for_ever(slurm: Any, stand_in: Path):
    number = submit(slurm, stand_in, "orphaned=3", STILLHOUSE_STEP_SECONDS="1")
    facts = slurm.wait(number)
    assert (facts["JobState"], facts["ExitCode"]) == ("COMPLETED", "0:0"), log_of(stand_in, number)
    assert "Slurm's step did not end within 1 s: no longer waited for" in log_of(stand_in, number)


def test_a_job_that_comes_no_further_is_not_requeued_for_ever_and_says_why(slurm: Any, stand_in: Path):
    number = submit(slurm, stand_in, "code=75", STILLHOUSE_STARTS="2")
    facts = slurm.wait(number)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("FAILED", "75:0", "1")
    assert "2 starts in a row came no further than update 0; not started again" in log_of(stand_in, number)


def test_each_script_prints_its_plan_and_lets_slurm_judge_it_without_submitting(slurm: Any, stand_in: Path):
    (stand_in / "list.txt").write_text(
        "train.seed=1 data.shards=http://me:planted@host/x\n\n# a remark\ntrain.seed=2 'run.name=two words'\n"
    )
    shards = ["--parts", "3", "--out", "out", "--tokenizer", "t", "a.txt"]
    calls = {
        "distil_pretrain.sh": (["--config", "x.yaml"], 1),
        "evaluate.sh": (["model", "--shards", "s"], 1),
        "build_shards.sh": (shards, 2),
        "sweep.sh": (["list.txt", "--config", "x.yaml"], 1),
        "all.sh": ([*shards, "--", "--config", "x.yaml", "run.folder=r", "--", "--json", "j"], 4),
    }
    before = slurm.run("squeue", "-h")
    for script, (words, jobs) in calls.items():
        secret = "data.shards=http://me:planted@host/?a=planted&token=planted&page=2"
        told = slurm.run(
            "bash", "-c", '"$@" 2>&1', "_", str(SCRIPTS / script), "--test-only", *words, secret, cwd=stand_in, **own(stand_in)
        )
        assert "planted" not in told
        assert "page=2" in told
        assert told.count("plan: sbatch ") == jobs, told
        assert told.count(" to start at ") == jobs, told
    assert slurm.run("squeue", "-h") == before
    refused = slurm.run(
        "bash", "-c", f"{SCRIPT} --test-only --config x.yaml 2>&1 || echo refused", cwd=stand_in, SBATCH_FLAGS="--nodes=9", **own(stand_in)
    )
    assert "refused" in refused
    assert "node configuration is not available" in refused


def test_a_sweep_is_an_array_with_a_run_for_each_line_and_a_requeueing_of_one_leaves_the_others_alone(slurm: Any, stand_in: Path):
    (stand_in / "list.txt").write_text("until=cancel\r\n# a remark\n\ntrain.seed=2 'run.name=two words' run.folder=mine until=signal")
    words = [str(SCRIPTS / "sweep.sh"), "list.txt", "--config", "x.yaml", "run.folder=runs/s"]
    number = slurm.submit(*words, cwd=stand_in, SBATCH_FLAGS="--nodes=1 --ntasks=1", **own(stand_in))
    runs = [f"{number}_{line}" for line in (1, 2)]
    end = time.monotonic() + 120
    while len(list(stand_in.glob("rank-0-0?.json"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    (run,) = [run for run in runs if slurm.job(run)["JobId"] == number]
    assert run == runs[1], "whose number is that of the whole array"
    slurm.run("scancel", "--batch", "--signal=USR2", run)
    facts = slurm.wait(run)
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1"), log_of(stand_in, f"sweep-{run}")
    other = slurm.job(runs[0])
    assert (other["JobState"], other["Restarts"]) == ("RUNNING", "0"), log_of(stand_in, f"sweep-{runs[0]}")
    slurm.run("scancel", runs[0])
    assert slurm.wait(runs[0])["JobState"] == "CANCELLED"
    given = [json.loads((stand_in / f"rank-0-{name}.json").read_text())["argv"][2:] for name in ("01", "12")]
    assert given[0] == ["run.folder=runs/s", "run.folder=runs/s/1", "until=cancel"]
    more = ["train.seed=2", "run.name=two words", "run.folder=mine", "until=signal"]
    assert given[1] == ["run.folder=runs/s", "run.folder=runs/s/2", *more]


def test_a_line_of_a_sweep_whose_quote_does_not_end_is_refused_before_anything_is_submitted(slurm: Any, stand_in: Path):
    (stand_in / "list.txt").write_text("train.seed=1\nrun.name=it's\n")
    told = slurm.run("bash", "-c", f"{SCRIPTS / 'sweep.sh'} list.txt --config x.yaml 2>&1 || echo code $?", cwd=stand_in, **own(stand_in))
    assert told.splitlines()[-2:] == [
        "sweep.sh: expected words quoted as in a shell, got a quote that does not end: run.name=it's",
        "code 2",
    ]
