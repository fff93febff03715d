"""A Hugging Face folder as a model to deploy: its task is read from config.json."""

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from data_shards.tokenizer.tokenizer import load_tokenizer
from kd.export.onnx_graph import Exported
from kd.models.config import read_config
from kd.models.encoder import Encoder
from kd.models.families import family_of
from kd.models.loading import load, load_mlm
from kd.tasks.batch import TaskKind
from kd.tasks.loading import load_task
from launcher.errors import LaunchError

Purpose = TaskKind | Literal["masked_lm", "hidden"]
"""The purpose of a model. hidden: it has no head, and gives the hidden states of its last layer."""
PROBLEMS: dict[str, TaskKind] = {
    "single_label_classification": "classification",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}


@dataclass(frozen=True)
class DeployedModel:
    """A model on the CPU in eval mode. labels: names in the order of the head; [] where it has none."""

    path: str
    purpose: Purpose
    encoder: Encoder
    exported: Exported
    labels: list[str]

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of its folder. Raises DataError for a folder without one."""
        return load_tokenizer(self.path)


def purpose_of(path: str) -> Purpose:
    """The purpose of a folder's model by its config.json. Raises KdError for a family that is not in the table."""
    config = read_config(path)
    name = (getattr(config, "architectures", None) or [""])[0] or ""
    if "SequenceClassification" in name:
        return PROBLEMS.get(str(config.problem_type), "regression" if config.num_labels == 1 else "classification")
    if "TokenClassification" in name:
        return "tagging"
    if "QuestionAnswering" in name:
        return "question_answering"
    return "masked_lm" if "MaskedLM" in name else "hidden"


def open_model(path: str, dtype: torch.dtype = torch.float32) -> DeployedModel:
    """Load a model for its purpose. Raises KdError for weights that are not those of config.json."""
    purpose = purpose_of(path)
    if purpose == "masked_lm":
        encoder = load_mlm(path, dtype)
        return DeployedModel(path, purpose, encoder, Exported(encoder, "logits"), [])
    if purpose == "hidden":
        config = read_config(path)
        encoder, missing = load(path, config, dtype, "sdpa")
        base = family_of(config).base
        if lacking := [name for name in missing if name.startswith(f"{base}.")]:
            raise LaunchError(f"{path}: expected every weight of the encoder, got none for {lacking[0]}; fetch the model again")
        return DeployedModel(path, purpose, encoder.eval(), Exported(encoder, "hidden"), [])
    task = load_task(path, purpose, lambda _where, names: list(range(len(names))), dtype)
    labels = task.labels if purpose in ("classification", "multi_label", "tagging") else []
    return DeployedModel(path, purpose, task, Exported(task, "spans" if purpose == "question_answering" else "logits"), labels)
