"""An exported model compared with its original on the same rows: agreement, metric with interval, largest difference of logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.corpus import Corpus
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from data_shards.tasks.labels import resolve_labels
from kd.batch import Batch
from kd.export.runtime import AnySession
from kd.models.outputs import EncoderOutputs
from kd.tasks.model import TaskEncoder
from launcher.config.task_config import TaskRunConfig
from launcher.deployment.models import DeployedModel
from launcher.errors import LaunchError
from launcher.tasks.build import check_metric_packages, make_scorer
from launcher.tasks.data import task_config
from launcher.tasks.scores import outputs_of, predictions_of
from launcher.tasks.source import TaskSource
from launcher.training.batches import heldout_batches

BATCH = 16


@dataclass(frozen=True)
class Quality:
    """rows: compared rows, or masked tokens. agreement: share of equal predictions. original, exported: the metric.

    drop: points of the metric that are lost; negative where the exported model is better. low, high: its 95 % interval.
    """

    data: str
    rows: int
    metric: str
    original: float
    exported: float
    drop: float
    low: float
    high: float
    agreement: float
    largest_logit_difference: float
    remark: str = ""
    served: str = f"rows of like length in batches of {BATCH}"


class RuntimeTask(nn.Module):
    """A session with the interface of a TaskEncoder, for kd.tasks' scores. order: as in TaskEncoder."""

    def __init__(self, session: AnySession, model: DeployedModel, order: list[int] | None) -> None:
        super().__init__()
        self._device = nn.Parameter(torch.zeros(()))
        self._session, self._order = session, order
        self.hf = SimpleNamespace(config=model.encoder.hf.config)

    def forward(self, batch: Batch) -> EncoderOutputs:
        """The logits of a batch; hidden states are not given."""
        logits = [torch.from_numpy(value) for value in run_batch(self._session, batch)]
        both = torch.stack(logits, -1) if len(logits) == 2 else logits[0]
        return EncoderOutputs(both, {}, logits=both if self._order is None else both[..., self._order])

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """A session is in eval mode always."""
        yield


def run_batch(session: AnySession, batch: Batch) -> list[Any]:
    """The outputs of a session on a batch of single documents."""
    types = torch.zeros_like(batch.input_ids) if batch.token_types is None else batch.token_types
    tensors: dict[str, Tensor] = {"input_ids": batch.input_ids, "attention_mask": batch.real.long(), "token_type_ids": types}
    return list(session.run([tensors[name].contiguous().numpy() for name in session.inputs]))


def read_task(model: str, path: str, settings: list[str]) -> TaskRunConfig:
    """The configuration of the task to compare on. The model takes the place of the student."""
    check_metric_packages()
    return task_config(path, [f"student.init={model}", *settings])


def task_quality(model: DeployedModel, original: AnySession, exported: AnySession, path: str, settings: list[str]) -> Quality:
    """Compare on a task's development set. Raises LaunchError for another kind of task than the model's."""
    config = read_task(model.path, path, settings)
    if config.data.kind != model.purpose:
        raise LaunchError(f"--task-config: expected a task of kind {model.purpose}, got {config.data.kind}; choose the model's own task")
    source = TaskSource.read(config)
    order = resolve_labels(source.labels, dict(enumerate(model.labels)), {}, model.path) if model.labels else None
    scorer = make_scorer(config, source, "dev", model.path)
    outputs = [outputs_of(cast(TaskEncoder, RuntimeTask(session, model, order)), scorer.task, BATCH) for session in (original, exported)]
    before, after = (predictions_of(one, scorer.task, scorer.examples) for one in outputs)
    metric = scorer.deciding
    difference = metric.difference(after, before, scorer.labels, config.evaluate.resamples)
    value, exported_value = (metric.value(predictions, scorer.labels) for predictions in (before, after))
    sign = -100 if metric.better == "higher" else 100
    drops = sorted(round(sign * end, 9) + 0.0 for end in (difference.low, difference.high))
    agreement = np.nan
    if model.purpose != "regression":
        agreement = float(np.mean([np.array_equal(one, other) for one, other in zip(before, after, strict=True)]))
    largest = max(float(np.abs(a - b).max()) for a, b in zip(outputs[0].logits, outputs[1].logits, strict=True) if a.size)
    rows = len(scorer.examples)
    drop = round(sign * difference.value, 9) + 0.0  # never -0.0
    constant = "constant_prediction" in scorer.scores(outputs[0]).details
    remark = "the original predicts the same for every row, so this comparison proves nothing" if constant else ""
    data = f"{rows} rows of dev"
    return Quality(data, rows, metric.key, value, exported_value, drop, drops[0], drops[1], agreement, largest, remark)


def shards_quality(model: DeployedModel, original: AnySession, exported: AnySession, shards: str, windows: int) -> Quality:
    """Compare at the masked tokens of held-out documents, one document in a row. The metric is top-1 accuracy."""
    corpus = Corpus.open(shards, None)
    if not corpus.manifest.entries("heldout"):
        raise LaunchError(f"{shards}: expected a held-out part, got none; build the shards with --heldout 0.01")
    tokens = min(128, model.encoder.max_positions)
    stream = Stream(corpus, "heldout", StreamSettings(window_tokens=tokens, packing="documents"), 1)
    right: list[Any] = []
    agreed, largest = [], 0.0
    for batch in heldout_batches(stream, BATCH, windows):
        where = batch.predicted.numpy()
        if not where.any():
            continue
        pair = [run_batch(session, batch)[0][where] for session in (original, exported)]
        labels = batch.labels.numpy()[where]
        if int(labels.max()) >= pair[0].shape[-1]:
            raise LaunchError(f"{shards}: expected shards of the model's tokenizer, got ids beyond its vocabulary; build them with it")
        best = [logits.argmax(-1) for logits in pair]
        right.append(np.stack([guess == labels for guess in best]))
        agreed.append(best[0] == best[1])
        largest = max(largest, float(np.abs(pair[0] - pair[1]).max()))
    if not right:
        raise LaunchError(f"{shards}: expected masked tokens in the held-out part, got none; build shards of more text")
    hits = np.concatenate(right, axis=1).astype(float)
    lost = 100 * (hits[0] - hits[1])
    half = 1.96 * lost.std() / np.sqrt(lost.size)
    drop = float(lost.mean())
    value, exported_value = (float(value) for value in hits.mean(axis=1))
    agreement = float(np.concatenate(agreed).mean())
    data = f"{lost.size} masked tokens of held-out documents"
    return Quality(data, lost.size, "top1", value, exported_value, drop, drop - half, drop + half, agreement, largest)
