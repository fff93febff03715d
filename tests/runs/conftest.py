"""Whole runs as a user starts them: real processes, real shards, a small teacher of random weights."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from run_lines import free_port, train_lines
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from data_shards.build import BuildSettings, build
from data_shards.sources import SourceSettings
from kd.models import quiet_transformers

ROOT = Path(__file__).resolve().parents[2]
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
SYLLABLES = "ba de fi go lu mer nor pel qua ris sto ten".split()  # noqa: SIM905


@dataclass(frozen=True)
class School:
    """Shards and a teacher that no test may change."""

    shards: Path
    teacher: Path


@pytest.fixture(scope="session")
def school(tmp_path_factory: pytest.TempPathFactory) -> School:
    """600 documents of invented words in a rhythm, and a random BERT of 4 layers over their vocabulary."""
    folder = tmp_path_factory.mktemp("school")
    draw = random.Random(5)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(90)]
    texts = []
    for _ in range(600):
        start = draw.randrange(len(words))
        texts.append(" ".join(words[(start + step * draw.choice((1, 1, 1, 7))) % len(words)] for step in range(draw.randint(5, 80))))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    pieces = [*SPECIAL.values(), *SYLLABLES, *(f"##{syllable}" for syllable in SYLLABLES)]
    backend = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    teacher = folder / "teacher"
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **SPECIAL).save_pretrained(teacher)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with quiet_transformers():
        BertForMaskedLM(config).save_pretrained(teacher)
    source = SourceSettings(path=str(folder / "texts.jsonl"))
    build(BuildSettings(sources=(source,), tokenizer=str(teacher), heldout=0.1, shard_tokens=5000, block_tokens=1000), folder / "shards", 1)
    return School(folder / "shards", teacher)


class Started:
    """One run's processes."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], logs: list[Path], folder: Path) -> None:
        self.processes = processes
        self.logs = logs
        self.folder = folder

    @property
    def output(self) -> str:
        return "\n".join(log.read_text(errors="replace") for log in self.logs)

    def wait(self, timeout_seconds: float = 180) -> list[int]:
        """The exit codes."""
        try:
            return [process.wait(timeout_seconds) for process in self.processes]
        finally:
            self.kill()

    def wait_for_update(self, update: int, timeout_seconds: float = 120) -> None:
        """Until a train line of that update, or a later one, is in metrics.jsonl."""
        end = time.monotonic() + timeout_seconds
        while not any(line["update"] >= update for line in train_lines(self.folder)):
            assert all(process.poll() is None for process in self.processes), self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.005)

    def signal(self, number: int) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.kill(process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.wait()


@pytest.fixture
def start(school: School, tmp_path: Path, compiled: str) -> Callable[..., Started]:
    """start(folder, *settings, ranks=1, config="tiny", limit=None): launcher/run.py on so many ranks, as torchrun or srun would.

    limit: called in each process before it starts (preexec_fn).
    """
    started: list[Started] = []

    def begin(
        folder: Path, *settings: str, ranks: int = 1, config: str = "tiny", arguments: tuple[str, ...] = (), limit: Any = None
    ) -> Started:
        base = [f"run.folder={folder}", f"data.shards={school.shards}"]
        if config == "tiny":
            base.append(f"teacher.model={school.teacher}")
        processes, logs = [], []
        port = free_port()
        for rank in range(ranks):
            log = tmp_path / f"{folder.name}-{len(started)}-{rank}.log"
            environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_SILENT": "true", "NO_COLOR": "1", "TORCH_EXTENSIONS_DIR": compiled}
            if ranks > 1:
                environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
                environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            command = [sys.executable, str(ROOT / "launcher" / "run.py"), "--config", config, *base, *settings, *arguments]
            with log.open("wb") as file:
                processes.append(
                    subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path, preexec_fn=limit)
                )
            logs.append(log)
        started.append(Started(processes, logs, folder))
        return started[-1]

    yield begin
    for run in started:
        run.kill()
