"""A Hugging Face encoder with a task's head, seen by its structure."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from kd.batch import Batch
from kd.models.encoder import Encoder
from kd.models.outputs import EncoderOutputs
from kd.tasks.batch import TaskKind

MODEL_CLASSES: dict[TaskKind, Any] = {
    "classification": AutoModelForSequenceClassification,
    "multi_label": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "tagging": AutoModelForTokenClassification,
    "question_answering": AutoModelForQuestionAnswering,
}
PROBLEM_TYPES: dict[TaskKind, str] = {
    "classification": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


class TaskEncoder(Encoder):
    """An encoder and its head: `hf` is one of transformers' classes, and runs as transformers runs it.

    order: the head's own number of each of the task's labels; None: the head has them in the task's order.
    """

    def __init__(self, hf: PreTrainedModel, kind: TaskKind, order: Sequence[int] | None = None) -> None:
        super().__init__(hf)
        self.kind = kind
        self.order = None if order is None or list(order) == list(range(len(order))) else list(order)

    def forward(self, batch: Batch) -> EncoderOutputs:
        """The last hidden states, and the head's logits: [B, C], [B, S, C] (tagging), or [B, S, 2] (start and end of an answer)."""
        last: list[Tensor] = []
        handle = self.base.register_forward_hook(lambda _module, _inputs, output: last.append(output[0]))
        try:
            types = {"token_type_ids": batch.token_types} if batch.token_types is not None and self.reads_token_types else {}
            mask = batch.real.long() if batch.device.type == "cpu" else self.mask_of(batch)
            output = self.hf(input_ids=batch.input_ids, attention_mask=mask, **types)
        finally:
            handle.remove()
        spans = self.kind == "question_answering"
        logits = torch.stack([output.start_logits, output.end_logits], dim=-1) if spans else output.logits
        return EncoderOutputs(last[0], {}, logits=logits if self.order is None else logits[..., self.order])

    def mask_of(self, batch: Batch) -> Any:
        """The attention mask of a batch on a device, of which transformers reads no value.

        transformers looks for padding in a mask [B, S], and a GPU would make the host wait. Here the host looks for it.
        """
        pools = getattr(self.hf.config, "classifier_pooling", "cls") == "mean" and self.kind in PROBLEM_TYPES
        if self.family.masks == "embeddings_apart" or (self.family.masks == "by_layer_type" and pools):  # they need [B, S]
            return batch.real.long()
        if self.family.masks == "one" and bool(batch.on_host.real.all()):
            return None
        allowed = batch.real[:, None, None].expand(-1, 1, batch.real.shape[1], -1)
        masks = self._as_kernel_wants(allowed)
        if self.family.masks == "one":
            return masks
        near = (batch.positions[:, None, :, None] - batch.positions[:, None, None, :]).abs() <= self.hf.config.sliding_window
        return {"full_attention": masks, "sliding_attention": self._as_kernel_wants(allowed & near)}

    @property
    def reads_token_types(self) -> bool:
        """True if the model can tell the second text of a pair from the first by more than a separator."""
        table = self.family.token_type_embeddings
        return table is not None and len(self.weight(table)) > 1

    @property
    def labels(self) -> list[str]:
        """The names of its labels, in the task's order."""
        names = [str(self.hf.config.id2label[number]) for number in range(self.hf.config.num_labels)]
        return names if self.order is None else [names[number] for number in self.order]

    def blank(self, dtype: torch.dtype) -> Self:
        """A model of the same configuration on the CPU, with any weights."""
        with torch.random.fork_rng(devices=[]):
            made = type(self)(MODEL_CLASSES[self.kind].from_config(deepcopy(self.hf.config), dtype=dtype), self.kind, self.order)
            return self._dropping_alike(made)

    @property
    def head_names(self) -> list[str]:
        """The names of the head's weights in `hf`: all weights outside the encoder, and the encoder's pooler."""
        return [name for name, _ in self.hf.named_parameters() if is_head(name, self.family.base)]

    def head_parameters(self) -> list[nn.Parameter]:
        """The weights of the head."""
        return [cast(nn.Parameter, self.hf.get_parameter(name)) for name in self.head_names]


def is_head(name: str, base: str) -> bool:
    """True if a weight of a task model is part of its head. base: name of the encoder's module."""
    return not name.startswith(f"{base}.") or name.startswith(f"{base}.pooler.")


def set_labels(config: PreTrainedConfig, kind: TaskKind, labels: Sequence[str]) -> None:
    """Write the task into a model's configuration. labels: in order; [] for question answering and regression."""
    if kind == "question_answering":
        config.num_labels = 2
        return
    names = list(labels) or ["score"]
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    config.problem_type = PROBLEM_TYPES.get(kind)
