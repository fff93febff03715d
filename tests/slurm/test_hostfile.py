"""Two hosts by other ways than a batch script: `deepspeed --hostfile`, which reaches both by pdsh and ssh; and `srun stillhouse doctor`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_lines import train_lines
from school import make_school
from stand_in import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
SERVER = """
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PidFile none
"""
CLIENT = """
IdentityFile {folder}/key
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
"""


@pytest.fixture
def ssh(slurm: Any, tmp_path: Path) -> Iterator[None]:
    """node1 and node2 let each other in; their /run and ssh's configuration are their own meanwhile."""
    missing = [tool for tool in ("/usr/sbin/sshd", "pdsh", "ssh") if shutil.which(tool) is None]
    if missing:
        message = f"two hosts under deepspeed need {', '.join(missing)}: apt-get install --no-install-recommends openssh-server pdsh"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{message} (in CI this is a failure)")
        pytest.skip(message)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    (tmp_path / "sshd_config").write_text(SERVER.format(folder=tmp_path))
    (tmp_path / "ssh_config").write_text(CLIENT.format(folder=tmp_path))
    prepare = f"mount -t tmpfs tmpfs /run && mkdir /run/sshd && mount --bind {tmp_path}/ssh_config /etc/ssh/ssh_config"
    for node in ("node1", "node2"):
        slurm.run("on", node, "bash", "-c", f"{prepare} && /usr/sbin/sshd -f {tmp_path}/sshd_config -E {tmp_path}/sshd.log")
    yield
    for node in ("node1", "node2"):
        slurm.run("on", node, "bash", "-c", "pkill -x sshd; umount /etc/ssh/ssh_config /run")


def test_a_hostfile_starts_a_rank_on_each_host_with_every_word_as_it_was_typed(slurm: Any, ssh: None, tmp_path: Path):
    school = make_school(tmp_path)
    (tmp_path / "hosts").write_text("node1 slots=1\nnode2 slots=1\n")
    # The launcher hands on PYTHON… and NCCL… by itself, and what this file says.
    handed_on = "OMP_NUM_THREADS=1\nHF_HUB_OFFLINE=1\nTORCH_CPP_LOG_LEVEL=ERROR\n"
    (tmp_path / ".deepspeed_env").write_text(handed_on)
    run = tmp_path / "a run"
    words = [f"run.folder={run}", f"data.shards={school.shards}", f"teacher.model={school.teacher}", "train.updates=4"]
    words += ["objective=[{kind: mlm}, {kind: soft_targets, temperature: 2.0}]", "run.name=it's named"]
    deepspeed = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", "hosts", str(ROOT / "launcher" / "run.py")]
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    there = ["bash", "-c", 'cd "$1" && shift && exec "$@"', "_", str(tmp_path)]
    command = [str(slurm.folder / "bin" / "on"), "node1", *there, *deepspeed, "--config", "tiny", *words]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line["update"] for line in train_lines(run)] == [2, 4]
    report = json.loads((run / "report.json").read_text())
    assert (report["ranks"], report["name"], report["updates"]) == (2, "it's named", 4)
    assert json.loads((run / "environment.json").read_text())["host"] == "node1"


def test_doctor_meets_itself_on_the_jobs_other_hosts_and_measures_the_way_there(slurm: Any, tmp_path: Path):
    words = ["--export=ALL", "--nodes=2", "--nodelist=node1,node2", "--ntasks-per-node=1", sys.executable, "-m", "launcher.cli", "doctor"]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    offline = {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}
    found = json.loads(slurm.run("srun", *words, "--json", "--folder", str(tmp_path / "runs"), cwd=tmp_path, **environment, **offline))
    by_subject = {finding["subject"]: finding for finding in found}
    assert "2 on the job's hosts by gloo: " in by_subject["ranks"]["found"]
    assert by_subject["ranks"]["verdict"] == by_subject["Slurm"]["verdict"] == "good"
    assert "NTASKS 2" in by_subject["Slurm"]["found"]
    assert not [finding for finding in found if finding["verdict"] == "bad"]
