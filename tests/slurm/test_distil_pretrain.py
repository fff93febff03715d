"""slurm/distil_pretrain.sh on a real Slurm of two hosts: the real trainer once, and the script's own promises with a stand-in."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_in import ROOT, SCRIPT, facts_of, submit, wait_for_ranks
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from data_shards.build import BuildSettings, build
from data_shards.sources import SourceSettings
from launcher.extensions import extensions_folder, prepare_extensions

pytestmark = pytest.mark.slow

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
WORDS = [f"word{n}" for n in range(59)]


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
    folders = {Path(rank["TORCH_EXTENSIONS_DIR"]) for rank in ranks}
    assert len(folders) == 2, "compiled ops are a node's own"
    assert not any(folder.exists() for folder in folders), "and are gone with the job"


@pytest.mark.parametrize("words", [("code=7",), ("code=7", "fails=2")], ids=["all ranks", "one rank"])
def test_the_exit_code_is_the_trainers_own(slurm: Any, stand_in: Path, words: tuple[str, ...]):
    facts = slurm.wait(submit(slurm, stand_in, *words), timeout_seconds=30)
    assert (facts["JobState"], facts["ExitCode"]) == ("FAILED", "7:0")


def test_a_signal_before_the_time_limit_saves_and_requeues(slurm: Any, stand_in: Path):
    number = submit(slurm, stand_in, "until=signal")
    wait_for_ranks(stand_in)
    slurm.run("scancel", "--batch", "--signal=USR2", number)
    facts = slurm.wait(number)
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1")
    before, after = facts_of(stand_in, 0), facts_of(stand_in, 1)
    assert not Path(before[0]["TORCH_EXTENSIONS_DIR"]).exists()
    assert before[0]["TORCH_EXTENSIONS_DIR"] != after[0]["TORCH_EXTENSIONS_DIR"], "a stale compile lock stays behind"


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


@pytest.fixture
def school(tmp_path: Path) -> Path:
    """A folder with teacher/ (four random layers with their tokenizer) and shards/ (400 documents of 30 words)."""
    torch.manual_seed(1)
    vocabulary = {word: number for number, word in enumerate([*SPECIAL.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **SPECIAL).save_pretrained(tmp_path / "teacher")
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
    BertForMaskedLM(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(tmp_path / "teacher")
    documents = [" ".join(WORDS[(n * n + k * (n + 1)) % len(WORDS)] for k in range(30)) for n in range(400)]
    (tmp_path / "text.txt").write_text("\n".join(documents))
    source = SourceSettings(path=str(tmp_path / "text.txt"))
    build(BuildSettings(sources=(source,), tokenizer=str(tmp_path / "teacher"), heldout=0.1), tmp_path / "shards", processes=1)
    return tmp_path


def test_two_hosts_distil_and_leave_a_checkpoint_and_metrics(slurm: Any, school: Path, monkeypatch: pytest.MonkeyPatch):
    settings = [
        f"run.folder={school / 'run'}",
        f"data.shards={school / 'shards'}",
        "data.window_tokens=32",
        f"teacher.model={school / 'teacher'}",
        "train.updates=3",
        "train.global_batch=8",
        "train.micro_batch=4",
        "checkpoint.every_updates=2",
        "report.every_updates=1",
    ]
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(extensions_folder()))
    prepare_extensions()  # or each host would compile for a minute
    environment = {"STILLHOUSE_PYTHON": sys.executable, "WANDB_MODE": "offline"}
    words = ["--nodes=2", "--ntasks-per-node=1", str(SCRIPT), "--config", str(ROOT / "configs" / "tiny.yaml"), *settings]
    number = slurm.submit("sbatch", *words, cwd=school, **environment)
    facts = slurm.wait(number, timeout_seconds=240)
    log = (school / f"stillhouse-{number}.out").read_text()
    assert (facts["JobState"], facts["ExitCode"]) == ("COMPLETED", "0:0"), log
    assert "2 ranks on node[1-2]" in log
    lines = [json.loads(line) for line in (school / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines if line["kind"] == "train"] == [1, 2, 3], lines
    assert list((school / "run" / "checkpoints").glob("*/*.safetensors")), log
    assert list((school / "run" / "student").glob("*.safetensors")), log
