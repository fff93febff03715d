"""What the job scripts refuse before sbatch is called. A stand-in for sbatch writes down its arguments; no Slurm is needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in import ROOT

BASH = str(shutil.which("bash"))
SCRIPTS = ("all.sh", "build_shards.sh", "distil_pretrain.sh", "evaluate.sh", "sweep.sh")
BUILD = ("--out", "shards", "--tokenizer", "t", "a.txt")
TRAIN = ("--config", "tiny", "run.folder=run")
SCORE = ("run/student", "--shards", "shards")
GOOD = {
    "all.sh": ("--parts", "2", *BUILD, "--", *TRAIN, "--", "--json", "scores.json"),
    "build_shards.sh": ("--parts", "2", *BUILD),
    "distil_pretrain.sh": TRAIN,
    "evaluate.sh": SCORE,
    "sweep.sh": ("list.txt", *TRAIN),
}


@pytest.fixture
def call(tmp_path: Path):
    """Runs a script where sbatch is a stand-in: (exit code, stdout, stderr, how often sbatch was called)."""
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\necho 7\n')
    sbatch.chmod(0o755)
    (tmp_path / "tools").mkdir()
    for tool in ("bash", "dirname", "sed", "tr", "grep", "xargs", "printf", "wc", "date", "cat"):
        (tmp_path / "tools" / tool).symlink_to(str(shutil.which(tool)))
    (tmp_path / "list.txt").write_text("optimizer.learning_rate=0.002\n# a comment\ntrain.seed=2 'run.name=two words'\n")

    def run(script: str, *words: str, slurm: bool = True) -> tuple[int, str, str, int]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        environment |= {"STILLHOUSE_PYTHON": sys.executable, "STILLHOUSE_CLUSTER": "none"}
        environment["PATH"] = f"{sbatch.parent}:{os.environ['PATH']}" if slurm else str(tmp_path / "tools")
        command = [BASH, str(ROOT / "slurm" / script), *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        calls = tmp_path / "calls"
        return done.returncode, done.stdout, done.stderr, len(calls.read_text().splitlines()) if calls.exists() else 0

    return run


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("more", [(), ("--parts", "2")])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_printed_and_nothing_is_submitted(call, script, more, flag):
    code, out, err, calls = call(script, *more, flag)
    assert (code, err, calls) == (0, "", 0)
    assert f"slurm/{script} [--test-only] " in out
    assert "#" not in out.splitlines()[0]
    assert "SBATCH --" not in out


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_arguments_are_refused_with_the_way_to_the_help(call, script):
    assert call(script) == (2, "", f"{script}: expected arguments, got none; see slurm/{script} --help\n", 0)


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("distil_pretrain.sh", ("--config", "tiny", "--no-such"), "unrecognized arguments: --no-such"),
        ("distil_pretrain.sh", ("train.updates=3",), "required: --config"),
        ("distil_pretrain.sh", ("--config", "absent.yaml"), "absent.yaml: expected"),
        ("distil_pretrain.sh", ("--config", "tiny", "train.updates=few"), "train.updates"),
        ("distil_pretrain.sh", ("--config", "tiny", "train.updatez=3"), "train.updatez"),
        ("sweep.sh", ("absent.txt", *TRAIN), "expected a file with one line for each run, got absent.txt"),
        ("sweep.sh", ("list.txt", "--config", "absent.yaml"), "absent.yaml: expected"),
        ("sweep.sh", ("wrong.txt", *TRAIN), "run 2: command line: train.updatez"),
        ("evaluate.sh", ("--no-such", *SCORE), "unrecognized arguments: --no-such"),
        ("evaluate.sh", ("run/student",), "required: --shards"),
        ("build_shards.sh", ("--parts", "2", "--no-such", *BUILD), "unrecognized arguments: --no-such"),
        ("build_shards.sh", ("--parts", "2", "--out", "shards", "a.txt"), "required: --tokenizer"),
        ("build_shards.sh", BUILD, "expected --parts N as the first arguments, got --out shards"),
        ("all.sh", ("--parts", "2", *BUILD, "--", "--config", "absent.yaml", "run.folder=run"), "absent.yaml: expected"),
        ("all.sh", (*GOOD["all.sh"], "--no-such"), "unrecognized arguments: --no-such"),
        ("all.sh", ("--parts", "2", "--no-such", *GOOD["all.sh"][2:]), "unrecognized arguments: --no-such"),
    ],
)
def test_what_the_job_would_refuse_is_refused_before_sbatch(call, tmp_path, script, words, said):
    (tmp_path / "wrong.txt").write_text("train.seed=1\ntrain.updatez=2\n")
    code, _, err, calls = call(script, *words)
    assert (code, calls) == (2, 0), err
    assert said in err
    assert "Traceback" not in err


JOBS = {"all.sh": 4, "build_shards.sh": 2, "distil_pretrain.sh": 1, "evaluate.sh": 1, "sweep.sh": 1}


@pytest.mark.parametrize(("script", "jobs"), JOBS.items())
def test_good_arguments_are_submitted(call, script, jobs):
    code, out, err, calls = call(script, *GOOD[script])
    assert (code, calls) == (0, jobs), err
    assert out.startswith("Submitted batch job")


@pytest.mark.parametrize(
    ("script", "advice"),
    [
        ("all.sh", "without Slurm: stillhouse shards build, stillhouse train, then stillhouse evaluate"),
        ("build_shards.sh", "without Slurm: stillhouse shards build …, which uses all cores of one machine"),
        ("distil_pretrain.sh", "without Slurm: deepspeed launcher/run.py --config …"),
        ("evaluate.sh", "without Slurm: stillhouse evaluate …"),
        ("sweep.sh", "without Slurm: stillhouse train --config … once for each line"),
    ],
)
def test_each_script_says_what_to_use_without_slurm(call, script, advice):
    code, out, err, _ = call(script, *GOOD[script], slurm=False)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith(f"expected Slurm's sbatch on PATH, got none; {advice}")


def test_a_python_that_this_node_lacks_does_not_keep_a_job_from_being_submitted(call, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    code, _, err, calls = call("evaluate.sh", *SCORE)
    assert (code, calls) == (0, 1)
    assert "/no/such/python cannot check the arguments on this node; the job checks them" in err
