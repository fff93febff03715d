"""DistilBERT's own training step as a peer in `stillhouse bench`: its file is run unchanged, from a checkout that the user names.

The checkout is `distillation/` of github.com/huggingface/transformers-research-projects. Its step takes one document a row, padded, whole
logits of every position in fp32, and KL on all real tokens. Its logging and its checkpoints are left out of the time.
"""

import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from kd.batch import Batch
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError

ABSENT = ("git", "tensorboardX")
"""Packages that it imports at its top and that its step does not need."""
NEVER = 10**9
FILES = ("distiller.py", "utils.py", "lm_seqs_dataset.py", "grouped_batch_sampler.py")


class PeerLoop:
    """A student and a teacher of transformers in its Distiller."""

    def __init__(self, checkout: Path, config: RunConfig, student: Any, teacher: Any, special: dict[str, int], counts: Tensor) -> None:
        """student, teacher: fp32 models of transformers. special: ids by names as pad_token. counts: [V] of each token, for its masking."""
        for model in (student, teacher):
            model.config.output_hidden_states = True
        self.steps = config.train.global_batch // config.train.micro_batch
        weights = counts.double().clamp(min=1) ** -0.7  # its own smoothing
        weights[list(special.values())] = 0.0
        documents = _Documents(config.train.global_batch)
        self.distiller = _module(checkout).Distiller(self._settings(config, special), documents, weights.float(), student, teacher)
        student.train()
        teacher.eval()

    def update(self, batches: Sequence[Batch]) -> float:
        """Learn from the documents of one update; its last loss."""
        for batch in batches:
            ids, mask, labels = self.distiller.prepare_batch_mlm(documents(batch))
            self.distiller.step(input_ids=ids, attention_mask=mask, lm_labels=labels)
        return float(self.distiller.last_loss)

    def _settings(self, config: RunConfig, special: dict[str, int]) -> SimpleNamespace:
        """The weights of its README, and this run's batch and learning rate."""
        gpus = int(torch.cuda.is_available())
        return SimpleNamespace(
            dump_path="",
            multi_gpu=False,
            fp16=False,
            n_gpu=gpus,
            local_rank=0,
            is_master=False,
            group_by_size=False,
            max_model_input_size=512,
            batch_size=1,
            temperature=2.0,
            alpha_ce=5.0,
            alpha_mlm=2.0,
            alpha_clm=0.0,
            alpha_mse=0.0,
            alpha_cos=1.0,
            mlm=True,
            mlm_mask_prop=0.15,
            word_mask=0.8,
            word_keep=0.1,
            word_rand=0.1,
            gradient_accumulation_steps=self.steps,
            n_epoch=1,
            weight_decay=config.optimizer.weight_decay,
            learning_rate=config.optimizer.learning_rate,
            adam_epsilon=config.optimizer.epsilon,
            warmup_prop=0.05,
            restrict_ce_to_mask=False,
            max_grad_norm=config.train.clip or 5.0,
            log_interval=NEVER,
            checkpoint_interval=NEVER,
            special_tok_ids=special,
        )


class _Documents:
    """The part of its data set that its constructor asks for."""

    def __init__(self, count: int) -> None:
        self.lengths = [1] * count

    def __len__(self) -> int:
        return len(self.lengths)

    def batch_sequences(self, batch: Any) -> Any:
        """Never called: batches are given to its step."""
        return batch


def documents(batch: Batch) -> tuple[Tensor, Tensor]:
    """The documents of packed windows as its step takes them: ids [n, longest] padded with 0, and lengths [n]. Masks are undone."""
    original = torch.where(batch.predicted, batch.labels, batch.input_ids)
    rows = [
        original[row][batch.segments[row] == number]
        for row in range(len(original))
        for number in range(1, int(batch.segments[row].max()) + 1)
    ]
    lengths = torch.tensor([len(row) for row in rows], device=original.device)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


def _module(checkout: Path) -> ModuleType:
    """Its distiller.py, imported."""
    missing = [name for name in FILES if not (checkout / name).is_file()]
    if missing:
        raise LaunchError(f"--peer: expected {', '.join(FILES)} in {checkout}, got no {missing[0]}; name its folder distillation/")
    for name in ABSENT:
        if name not in sys.modules:
            stand_in = ModuleType(name)
            stand_in.SummaryWriter = object  # type: ignore[attr-defined]
            sys.modules[name] = stand_in
    sys.path.insert(0, str(checkout))
    try:
        found = importlib.import_module("distiller")
        logging.getLogger("utils").setLevel(logging.WARNING)  # its sentences about its start
        return found
    except ImportError as error:
        raise LaunchError(f"--peer: expected {checkout}/distiller.py to be importable, got {error}") from None
    finally:
        sys.path.remove(str(checkout))
